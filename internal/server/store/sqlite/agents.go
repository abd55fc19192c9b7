package sqlite

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// SaveAgents inserts or replaces agents.
func (s *Store) SaveAgents(ctx context.Context, batch store.AgentBatch) error {
	if err := store.CheckTexts(batch.Agents, batch.Events); err != nil {
		return err
	}
	for i := range batch.Agents {
		if err := fleet.ValidateUID(batch.Agents[i].UID); err != nil {
			return fmt.Errorf("%w: %w", store.ErrInvalid, err)
		}
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		for _, body := range batch.Bodies {
			if err := saveBody(ctx, tx, body); err != nil {
				return err
			}
		}
		for i := range batch.Agents {
			if err := saveAgent(ctx, tx, &batch.Agents[i]); err != nil {
				return fmt.Errorf("agent %s: %w", batch.Agents[i].UID, err)
			}
		}
		return insertEvents(ctx, tx, batch.Events)
	})
}

func saveAgent(ctx context.Context, tx *sql.Tx, a *fleet.Agent) error {
	text, err := encode(a)
	if err != nil {
		return err
	}
	attributes, err := encode(a.Attributes())
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO agents (uid, state, connected, effective_hash, first_seen, attributes, document)
			VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (uid) DO UPDATE SET state = excluded.state, connected = excluded.connected,
			effective_hash = excluded.effective_hash, attributes = excluded.attributes, document = excluded.document`,
		a.UID, a.State(), a.Connected, a.EffectiveConfigHash, nanos(a.FirstSeen), attributes, text)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO agent_seen (uid, last_seen) VALUES (?, ?)
		ON CONFLICT (uid) DO UPDATE SET last_seen = excluded.last_seen WHERE excluded.last_seen > last_seen`, a.UID, nanos(a.LastSeen))
	if err != nil {
		return err
	}
	_, err = changed(ctx, tx, store.ChangedAgent, a.UID, false)
	return err
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
	return s.writing(ctx, func(tx *sql.Tx) error {
		touch, err := tx.PrepareContext(ctx, `UPDATE agent_seen SET last_seen = ?1 WHERE uid = ?2 AND last_seen < ?1`)
		if err != nil {
			return err
		}
		defer touch.Close()
		// In the order of the keys: pages are written once.
		for _, uid := range slices.Sorted(maps.Keys(seen)) {
			if _, err := touch.ExecContext(ctx, nanos(seen[uid]), uid); err != nil {
				return err
			}
		}
		return nil
	})
}

const selectAgent = `SELECT first_seen, last_seen, document FROM agents JOIN agent_seen USING (uid) WHERE uid = ?`

type scanner interface{ Scan(into ...any) error }

func scanAgent(row scanner) (fleet.Agent, error) {
	var first, last int64
	var text document[fleet.Agent]
	err := row.Scan(&first, &last, &text)
	text.value.FirstSeen, text.value.LastSeen = fromNanos(first), fromNanos(last)
	return text.value, err
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
		page.Agents = make([]fleet.Agent, 0, len(uids))
		read, err := tx.PrepareContext(ctx, selectAgent)
		if err != nil {
			return err
		}
		defer read.Close()
		for _, uid := range uids {
			a, err := scanAgent(read.QueryRowContext(ctx, uid))
			if err != nil {
				if err = notFound(err, "agent", uid); isGone(err) {
					continue // the index was ahead of this transaction
				}
				return err
			}
			page.Agents = append(page.Agents, a)
		}
		return nil
	})
	return page, err
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
		return insertEvents(ctx, tx, events)
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
	type row struct {
		first, last int64
		text        document[fleet.Agent]
	}
	rows, err := s.read.QueryContext(ctx, `SELECT first_seen, last_seen, document FROM agents JOIN agent_seen USING (uid) ORDER BY uid`)
	all, err := collect(rows, err, func(r *row) []any { return []any{&r.first, &r.last, &r.text} })
	agents := make([]fleet.Agent, len(all))
	for i := range all {
		agents[i] = all[i].text.value
		agents[i].FirstSeen, agents[i].LastSeen = fromNanos(all[i].first), fromNanos(all[i].last)
	}
	return agents, err
}
