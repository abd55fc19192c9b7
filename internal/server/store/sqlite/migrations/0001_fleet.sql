-- Times are nanoseconds since 1970 UTC, 0 for none. Documents are JSON.

CREATE TABLE sequence (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (1, 0);

-- One row for each thing that ever was: its last change.
CREATE TABLE changes (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    revision INTEGER NOT NULL UNIQUE,
    deleted INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE agents (
    uid TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    connected INTEGER NOT NULL,
    effective_hash TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX agents_effective ON agents (effective_hash);

-- Apart from agents, so that a heartbeat does not rewrite a document.
CREATE TABLE agent_seen (
    uid TEXT NOT NULL PRIMARY KEY REFERENCES agents (uid) ON DELETE CASCADE,
    last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Effective configurations by content hash, gzip.
CREATE TABLE bodies (hash TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL) STRICT;

-- A deleted configuration keeps its row, so that version numbers go on.
CREATE TABLE configurations (
    name TEXT NOT NULL PRIMARY KEY,
    latest INTEGER NOT NULL,
    released INTEGER NOT NULL,
    salt TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    configuration TEXT NOT NULL REFERENCES configurations (name),
    number INTEGER NOT NULL,
    selector TEXT NOT NULL,
    priority INTEGER NOT NULL,
    hash TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (configuration, number)
) STRICT;

CREATE TABLE rollouts (
    id TEXT NOT NULL PRIMARY KEY,
    configuration TEXT NOT NULL,
    unfinished INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX rollouts_unfinished ON rollouts (configuration) WHERE unfinished = 1;
CREATE INDEX rollouts_created ON rollouts (created_at, id);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    agent TEXT NOT NULL,
    configuration TEXT NOT NULL,
    rollout TEXT NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX events_time ON events (time);
CREATE INDEX events_agent ON events (agent, id) WHERE agent <> '';
CREATE INDEX events_configuration ON events (configuration, id) WHERE configuration <> '';
CREATE INDEX events_rollout ON events (rollout, id) WHERE rollout <> '';
