package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// PutDocument inserts or replaces a document.
func (s *Store) PutDocument(ctx context.Context, kind, name string, data []byte, events ...fleet.Event) error {
	if err := store.CheckTexts(kind, name, events); err != nil {
		return err
	}
	if kind == "" || name == "" {
		return fmt.Errorf("a document needs a kind and a name: %w", store.ErrInvalid)
	}
	if len(data) > store.MaxDocument {
		return fmt.Errorf("%s %.200q: %d bytes, want at most %d: %w", kind, name, len(data), store.MaxDocument, store.ErrInvalid)
	}
	if data == nil {
		data = []byte{} // nil would be NULL
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO documents (kind, name, data, updated_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (kind, name) DO UPDATE SET data = excluded.data, updated_at = excluded.updated_at`,
			kind, name, data, nanos(time.Now()))
		if err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
}

// Documents returns all of a kind.
func (s *Store) Documents(ctx context.Context, kind string) ([]store.Document, error) {
	type row struct {
		store.Document
		updated int64
	}
	rows, err := s.read.QueryContext(ctx, `SELECT kind, name, data, updated_at FROM documents WHERE kind = ? ORDER BY name`, kind)
	all, err := collect(rows, err, func(r *row) []any { return []any{&r.Kind, &r.Name, &r.Data, &r.updated} })
	documents := make([]store.Document, 0, len(all))
	for _, r := range all {
		if r.UpdatedAt = fromNanos(r.updated); r.Data == nil {
			r.Data = []byte{}
		}
		documents = append(documents, r.Document)
	}
	return documents, err
}

// DeleteDocument deletes one.
func (s *Store) DeleteDocument(ctx context.Context, kind, name string, events ...fleet.Event) error {
	if err := store.CheckTexts(events); err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM documents WHERE kind = ? AND name = ?`, kind, name)
		if err := mustChange(result, err, kind, name); err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
}
