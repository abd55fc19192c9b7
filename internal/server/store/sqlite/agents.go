package sqlite

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// agentRow is an agent as it is stored.
type agentRow struct {
	agent                *fleet.Agent
	attributes, document []byte
}

func (r *agentRow) fields() []any {
	a := r.agent
	return []any{
		a.UID, string(a.State()), a.Connected, a.EffectiveConfigHash, nanos(a.FirstSeen), string(r.attributes), string(r.document),
	}
}

// SaveAgents inserts or replaces agents. What costs time without the database is done before the writer is taken.
func (s *Store) SaveAgents(ctx context.Context, batch store.AgentBatch) error {
	agents, err := encodeAgents(batch.Agents)
	if err != nil {
		return err
	}
	events, err := encodeEvents(batch.Events)
	if err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		for _, body := range batch.Bodies {
			if err := saveBody(ctx, tx, body); err != nil {
				return err
			}
		}
		if err := s.saveAgentRows(ctx, tx, agents); err != nil {
			return err
		}
		return s.insertEventRows(ctx, tx, events)
	})
}

func encodeAgents(agents []fleet.Agent) (rows []agentRow, err error) {
	rows = make([]agentRow, len(agents))
	for i := range agents {
		a := &agents[i]
		if err := fleet.ValidateUID(a.UID); err != nil {
			return nil, fmt.Errorf("%w: %w", store.ErrInvalid, err)
		}
		rows[i].agent = a
		if rows[i].document, rows[i].attributes, err = encodeAgent(a); err != nil {
			return nil, fmt.Errorf("agent %s: %w", a.UID, err)
		}
	}
	return rows, nil
}

func (s *Store) saveAgentRows(ctx context.Context, tx *sql.Tx, rows []agentRow) error {
	if len(rows) == 0 {
		return nil
	}
	if err := execMany(ctx, tx.StmtContext(ctx, s.prepared.saveAgent), rows, (*agentRow).fields); err != nil {
		return err
	}
	uids, seen := make([]string, len(rows)), make([][2]any, len(rows))
	for i := range rows {
		uids[i] = rows[i].agent.UID
		seen[i] = [2]any{uids[i], nanos(rows[i].agent.LastSeen)}
	}
	list, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	if _, err := tx.StmtContext(ctx, s.prepared.saveSeen).ExecContext(ctx, string(list)); err != nil {
		return err
	}
	return s.changedAgents(ctx, tx, uids)
}

// saveBody keeps a body once. Those of a fleet are much alike inside, so they are compressed.
func saveBody(ctx context.Context, tx *sql.Tx, body []byte) error {
	hash := fleet.ContentHash(body)
	var there int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM bodies WHERE hash = ?`, hash).Scan(&there); err != nil || there > 0 {
		return err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(body); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO bodies (hash, body) VALUES (?, ?)`, hash, packed.Bytes())
	return err
}

// EffectiveConfig returns a body by its hash.
func (s *Store) EffectiveConfig(ctx context.Context, hash string) ([]byte, error) {
	var packed []byte
	if err := s.read.QueryRowContext(ctx, `SELECT body FROM bodies WHERE hash = ?`, hash).Scan(&packed); err != nil {
		return nil, notFound(err, "effective configuration", hash)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("effective configuration %s: %w", hash, err)
	}
	return io.ReadAll(r)
}

// TouchAgents moves LastSeen forward.
func (s *Store) TouchAgents(ctx context.Context, seen map[string]time.Time) error {
	if len(seen) == 0 {
		return nil
	}
	// In the order of the keys: pages are written once.
	uids := slices.Sorted(maps.Keys(seen))
	return s.writing(ctx, func(tx *sql.Tx) error {
		return execMany(ctx, tx.StmtContext(ctx, s.prepared.touch), uids, func(uid *string) []any { return []any{nanos(seen[*uid]), *uid} })
	})
}

const selectAgent = `SELECT first_seen, last_seen, document FROM agents JOIN agent_seen USING (uid) WHERE uid = ?`

type scanner interface{ Scan(into ...any) error }

func scanAgent(row scanner) (fleet.Agent, error) {
	var first, last int64
	var text string
	if err := row.Scan(&first, &last, &text); err != nil {
		return fleet.Agent{}, err
	}
	a, err := decodeAgent(text)
	a.FirstSeen, a.LastSeen = fromNanos(first), fromNanos(last)
	return a, err
}

// Agent returns one.
func (s *Store) Agent(ctx context.Context, uid string) (fleet.Agent, error) {
	a, err := scanAgent(s.read.QueryRowContext(ctx, selectAgent, uid))
	return a, notFound(err, "agent", uid)
}

// ListAgents finds agents in the index, and reads those of the page.
func (s *Store) ListAgents(ctx context.Context, q store.AgentQuery) (page store.AgentPage, err error) {
	err = s.reading(ctx, func(tx *sql.Tx) error {
		entries, err := s.index.refresh(ctx, tx)
		if err != nil {
			return err
		}
		unseen, err := unseenAgents(ctx, tx, q.SeenSince)
		if err != nil {
			return err
		}
		var uids []string
		uids, page.Next, page.Total = find(entries, q, unseen)
		// Where the index was ahead of this transaction, an agent may be missing.
		page.Agents, err = s.agentsByUID(ctx, tx, uids)
		return err
	})
	return page, err
}

func (s *Store) agentsByUID(ctx context.Context, tx *sql.Tx, uids []string) ([]fleet.Agent, error) {
	if len(uids) == 0 {
		return []fleet.Agent{}, nil
	}
	list, err := json.Marshal(uids)
	if err != nil {
		return nil, err
	}
	rows, err := tx.StmtContext(ctx, s.prepared.agentsByUID).QueryContext(ctx, string(list))
	return collectWith(rows, err, scanAgent)
}

// ForgetAgent deletes an agent.
func (s *Store) ForgetAgent(ctx context.Context, uid string, events ...fleet.Event) error {
	if err := store.CheckTexts(events); err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		var connected bool
		if err := tx.QueryRowContext(ctx, `SELECT connected FROM agents WHERE uid = ?`, uid).Scan(&connected); err != nil {
			return notFound(err, "agent", uid)
		}
		if connected {
			return fmt.Errorf("agent %s is connected: %w", uid, store.ErrConflict)
		}
		if err := deleteAgent(ctx, tx, uid); err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
}

func deleteAgent(ctx context.Context, tx *sql.Tx, uid string) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM agents WHERE uid = ?`, uid); err != nil {
		return err
	}
	_, err := changed(ctx, tx, store.ChangedAgent, uid, true)
	return err
}

// AllAgents reads every agent.
func (s *Store) AllAgents(ctx context.Context) ([]fleet.Agent, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT first_seen, last_seen, document FROM agents JOIN agent_seen USING (uid) ORDER BY uid`)
	return collectWith(rows, err, scanAgent)
}
