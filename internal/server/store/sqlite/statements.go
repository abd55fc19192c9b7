package sqlite

import (
	"context"
	"database/sql"
	"errors"
)

// statements are those that run often, prepared once. Those that write many small rows take them as one JSON array: a row of
// its own statement costs more than SQLite's work for it.
type statements struct {
	saveAgent, saveSeen, touch, count, saveChanges, saveEvent *sql.Stmt // of the writer
	agentsByUID                                               *sql.Stmt // of the readers
}

func (p *statements) prepare(ctx context.Context, write, read *sql.DB) (err error) {
	for _, s := range []struct {
		db   *sql.DB
		into **sql.Stmt
		text string
	}{
		{write, &p.saveAgent, `INSERT INTO agents (uid, state, connected, effective_hash, first_seen, attributes, document)
				VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (uid) DO UPDATE SET state = excluded.state, connected = excluded.connected,
				effective_hash = excluded.effective_hash, attributes = excluded.attributes, document = excluded.document`},
		{write, &p.saveSeen, `INSERT INTO agent_seen (uid, last_seen) SELECT value->>0, value->>1 FROM json_each(?) WHERE TRUE
			ON CONFLICT (uid) DO UPDATE SET last_seen = excluded.last_seen WHERE excluded.last_seen > last_seen`},
		{write, &p.touch, `UPDATE agent_seen SET last_seen = ?1 WHERE uid = ?2 AND last_seen < ?1`},
		{write, &p.count, `UPDATE sequence SET revision = revision + ? RETURNING revision`},
		{write, &p.saveChanges, `INSERT INTO changes (kind, key, revision, deleted) SELECT 'agent', value, ? + j.key, 0 FROM json_each(?) AS j WHERE TRUE
			ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, deleted = excluded.deleted`},
		{write, &p.saveEvent, `INSERT INTO events (time, agent, configuration, rollout, document) VALUES (?, ?, ?, ?, ?)`},
		{read, &p.agentsByUID, `SELECT first_seen, last_seen, document FROM json_each(?) AS j CROSS JOIN agents ON agents.uid = j.value
			CROSS JOIN agent_seen ON agent_seen.uid = j.value ORDER BY j.key`},
	} {
		if *s.into, err = s.db.PrepareContext(ctx, s.text); err != nil {
			return err
		}
	}
	return nil
}

// execMany runs a statement of a transaction once for each row. A context that can end costs the driver a goroutine for each
// statement, so it is looked at between them.
func execMany[T any](ctx context.Context, statement *sql.Stmt, rows []T, fields func(*T) []any) error {
	detached := context.WithoutCancel(ctx)
	for i := range rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := statement.ExecContext(detached, fields(&rows[i])...); err != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}
