package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/collie-otel/collie/internal/server/store"
)

const maxChanges = 10_000

// changed gives the thing the next revision. One writer at a time makes revisions become visible in their order.
func changed(ctx context.Context, tx *sql.Tx, kind store.ChangeKind, key string, deleted bool) (revision int64, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE sequence SET revision = revision + 1 RETURNING revision`).Scan(&revision)
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO changes (kind, key, revision, deleted) VALUES (?, ?, ?, ?)
		ON CONFLICT (kind, key) DO UPDATE SET revision = excluded.revision, deleted = excluded.deleted`, kind, key, revision, deleted)
	return revision, err
}

// changedAgents gives each agent the next revision, in their order.
func (s *Store) changedAgents(ctx context.Context, tx *sql.Tx, uids []string) error {
	list, err := json.Marshal(uids)
	if err != nil {
		return err
	}
	var last int64
	if err := tx.StmtContext(ctx, s.prepared.count).QueryRowContext(ctx, len(uids)).Scan(&last); err != nil {
		return err
	}
	_, err = tx.StmtContext(ctx, s.prepared.saveChanges).ExecContext(ctx, last-int64(len(uids))+1, string(list))
	return err
}

// Revision is the number of the last change.
func (s *Store) Revision(ctx context.Context) (revision int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT revision FROM sequence`).Scan(&revision)
	return revision, err
}

// Changes are the things that changed after since.
func (s *Store) Changes(ctx context.Context, since int64, limit int) ([]store.Change, error) {
	if limit <= 0 || limit > maxChanges {
		limit = maxChanges
	}
	rows, err := s.read.QueryContext(ctx,
		`SELECT revision, kind, key, deleted FROM changes WHERE revision > ? ORDER BY revision LIMIT ?`, since, limit)
	return collect(rows, err, func(c *store.Change) []any { return []any{&c.Revision, &c.Kind, &c.Key, &c.Deleted} })
}

// collect reads all rows into values, whose fields are scanned into.
func collect[T any](rows *sql.Rows, err error, fields func(*T) []any) (all []T, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v T
		if err := rows.Scan(fields(&v)...); err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// nanos is a time as it is stored.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// document is a column of JSON.
type document[T any] struct{ value T }

// Scan reads the column.
func (d *document[T]) Scan(column any) error {
	text, _ := column.(string)
	return json.Unmarshal([]byte(text), &d.value)
}

// encode makes the text of such a column. ErrInvalid if a text in value is not UTF-8: JSON has an escape in the place of such
// bytes, but not where the character is meant, so only what has the escape is worth a look at each of its texts.
func encode(value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err == nil && hasReplacement(text) {
		err = store.CheckTexts(value)
	}
	return text, err
}

func hasReplacement(text []byte) bool { return bytes.Contains(text, []byte(`\ufffd`)) }
