package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// agentIndex holds in memory what lists search by: attributes and state. It follows the sequence of changes, so it is right
// whoever writes the file. Selectors are evaluated here and not in SQL, for speed (DESIGN.md has the figures) and so that no
// text of a user comes near a statement.
type agentIndex struct {
	mu       sync.Mutex // guards what follows
	revision int64
	entries  []*entry // by UID; never changed in place, so that lists go on without the lock
}

// entry is never changed. A fleet has few keys and few values, so entries share them.
type entry struct {
	uid    string
	state  fleet.State
	keys   *keys
	values []string // of the keys
}

// keys of attributes in their order.
type keys []string

type indexRow struct {
	uid        string
	revision   int64
	state      sql.NullString
	attributes sql.NullString
}

// refresh takes up what changed, and returns the entries as of the transaction or later.
func (x *agentIndex) refresh(ctx context.Context, tx *sql.Tx) ([]*entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var revision int64
	if err := tx.QueryRowContext(ctx, `SELECT revision FROM sequence`).Scan(&revision); err != nil {
		return nil, err
	}
	if revision <= x.revision {
		return x.entries, nil
	}
	rows, err := tx.QueryContext(ctx, `SELECT key, revision, state, attributes FROM changes LEFT JOIN agents ON uid = key
		WHERE kind = 'agent' AND revision > ?`, x.revision)
	all, err := collect(rows, err, func(r *indexRow) []any { return []any{&r.uid, &r.revision, &r.state, &r.attributes} })
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		if err := x.merge(all); err != nil {
			return nil, err
		}
	}
	x.revision = revision
	return x.entries, nil
}

// merge replaces the entries of the rows. A list after each of many changes must not pay for a sort of the whole fleet: what
// lies between two rows is copied as it is.
func (x *agentIndex) merge(rows []indexRow) error {
	slices.SortFunc(rows, func(a, b indexRow) int { return strings.Compare(a.uid, b.uid) })
	entries, rest := make([]*entry, 0, len(x.entries)+len(rows)), x.entries
	known := sharing{texts: map[string]string{}, keys: map[string]*keys{}}
	if n := len(x.entries); n > 0 {
		known.learn(x.entries[n-1]) // for those that come after it
	}
	for _, r := range rows {
		at, found := slices.BinarySearchFunc(rest, r.uid, func(e *entry, uid string) int { return strings.Compare(e.uid, uid) })
		entries = append(entries, rest[:at]...)
		if rest = rest[at:]; len(rest) > 0 {
			known.learn(rest[0]) // this agent's as it was, or its neighbour's
		}
		if found {
			rest = rest[1:]
		}
		if !r.attributes.Valid {
			continue // gone
		}
		e, err := known.entry(&r)
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	x.entries = append(entries, rest...)
	return nil
}

// unseenAgents returns the agents that are not connected and were last seen before since, none if it is zero. Heartbeats make no
// revision, so last_seen is read and not kept in the index.
func unseenAgents(ctx context.Context, tx *sql.Tx, since time.Time) (map[string]bool, error) {
	if since.IsZero() {
		return nil, nil
	}
	rows, err := tx.QueryContext(ctx, `SELECT uid FROM agents JOIN agent_seen USING (uid) WHERE connected = 0 AND last_seen < ?`, nanos(since))
	uids, err := collect(rows, err, func(uid *string) []any { return []any{uid} })
	unseen := make(map[string]bool, len(uids))
	for _, uid := range uids {
		unseen[uid] = true
	}
	return unseen, err
}

// find returns the page of the query without the unseen.
func find(entries []*entry, q store.AgentQuery, unseen map[string]bool) (uids []string, next string, total int) {
	m := newMatcher(q)
	limit := limited(q.Limit)
	for _, e := range entries {
		if !m.matches(e) {
			continue
		}
		if len(unseen) > 0 && e.state == fleet.Disconnected && unseen[e.uid] {
			continue // the state decides where the index is ahead of the transaction
		}
		total++
		switch {
		case e.uid <= q.Cursor:
		case len(uids) < limit:
			uids = append(uids, e.uid)
		default:
			next = uids[limit-1]
		}
	}
	return uids, next, total
}

func isGone(err error) bool { return errors.Is(err, store.ErrNotFound) }
