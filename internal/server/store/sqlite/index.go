package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync"
	"unique"

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

// entry is never changed.
type entry struct {
	uid        string
	state      fleet.State
	attributes map[string]string
	// text is what people search in, in lower case, each part ended by a byte that no text has.
	text string
}

const endOfPart = "\xff"

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

// merge replaces the entries of the rows.
func (x *agentIndex) merge(rows []indexRow) error {
	replaced := make(map[string]*entry, len(rows))
	for _, r := range rows {
		replaced[r.uid] = nil // gone
		if !r.attributes.Valid {
			continue
		}
		var attributes document[map[string]string]
		if err := attributes.Scan(r.attributes.String); err != nil {
			return err
		}
		replaced[r.uid] = &entry{r.uid, fleet.State(r.state.String), shared(attributes.value), searchText(r.uid, attributes.value)}
	}
	entries := make([]*entry, 0, len(x.entries)+len(rows))
	for _, e := range x.entries {
		if _, found := replaced[e.uid]; !found {
			entries = append(entries, e)
		}
	}
	for _, e := range replaced {
		if e != nil {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int { return strings.Compare(a.uid, b.uid) })
	x.entries = entries
	return nil
}

// shared makes equal keys and values share memory: a fleet has few of them.
func shared(attributes map[string]string) map[string]string {
	m := make(map[string]string, len(attributes))
	for k, v := range attributes {
		m[unique.Make(k).Value()] = unique.Make(v).Value()
	}
	return m
}

// find returns the page of the query.
func find(entries []*entry, q store.AgentQuery) (uids []string, next string, total int) {
	text := strings.ToValidUTF8(strings.ToLower(q.Text), "\uFFFD")
	limit := limited(q.Limit)
	for _, e := range entries {
		if q.State != "" && e.state != q.State || !q.Selector.Matches(e.attributes) || !strings.Contains(e.text, text) {
			continue
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

func searchText(uid string, attributes map[string]string) string {
	var b strings.Builder
	b.WriteString(uid + endOfPart)
	for k, v := range attributes {
		b.WriteString(strings.ToLower(k) + endOfPart + strings.ToLower(v) + endOfPart)
	}
	return b.String()
}

func isGone(err error) bool { return errors.Is(err, store.ErrNotFound) }
