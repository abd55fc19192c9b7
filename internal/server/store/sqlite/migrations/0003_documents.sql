-- Small things of the server by kind and name; data are any bytes.
CREATE TABLE documents (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

-- Few agents are not connected, and lists ask for them.
CREATE INDEX agents_disconnected ON agents (uid) WHERE connected = 0;
