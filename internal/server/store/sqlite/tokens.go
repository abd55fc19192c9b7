package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

type tokenRow struct {
	hash string
	uses int
	text document[store.Token]
}

func (r *tokenRow) fields() []any { return []any{&r.hash, &r.uses, &r.text} }

func (r *tokenRow) token() store.Token {
	t := r.text.value
	t.Hash, t.Uses = r.hash, r.uses
	return t
}

// CreateToken stores a token.
func (s *Store) CreateToken(ctx context.Context, t store.Token, events ...fleet.Event) error {
	if err := store.CheckTexts(t, events); err != nil {
		return err
	}
	if t.ID == "" || t.Hash == "" {
		return fmt.Errorf("a token needs an id and a hash: %w", store.ErrInvalid)
	}
	t.CreatedAt, t.ExpiresAt = t.CreatedAt.UTC(), t.ExpiresAt.UTC()
	text, err := encode(t)
	if err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO tokens (id, hash, uses, created_at, expires_at, document) VALUES (?, ?, ?, ?, ?, ?)`,
			t.ID, t.Hash, t.Uses, nanos(t.CreatedAt), nanos(t.ExpiresAt), string(text))
		if isDuplicate(err) {
			return fmt.Errorf("token %s: %w", t.ID, store.ErrConflict)
		}
		if err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
}

const validToken = `hash = ? AND uses <> 0 AND (expires_at = 0 OR expires_at > ?)`

// UseToken finds a token and counts its use. Those without limit cost no write.
func (s *Store) UseToken(ctx context.Context, hash string, now time.Time) (store.Token, error) {
	var row tokenRow
	err := s.read.QueryRowContext(ctx, `SELECT hash, uses, document FROM tokens WHERE `+validToken, hash, nanos(now)).Scan(row.fields()...)
	if err != nil {
		return store.Token{}, notFound(err, "token", "")
	}
	if row.uses < 0 {
		return row.token(), nil
	}
	err = s.writing(ctx, func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `UPDATE tokens SET uses = uses - 1 WHERE `+validToken+` RETURNING hash, uses, document`,
			hash, nanos(now)).Scan(row.fields()...)
	})
	if err != nil {
		return store.Token{}, notFound(err, "token", "")
	}
	return row.token(), nil
}

// ListTokens returns all.
func (s *Store) ListTokens(ctx context.Context) ([]store.Token, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT hash, uses, document FROM tokens ORDER BY created_at, id`)
	all, err := collect(rows, err, (*tokenRow).fields)
	tokens := make([]store.Token, 0, len(all))
	for i := range all {
		tokens = append(tokens, all[i].token())
	}
	return tokens, err
}

// RevokeToken deletes a token.
func (s *Store) RevokeToken(ctx context.Context, id string, events ...fleet.Event) error {
	if err := store.CheckTexts(events); err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE id = ?`, id)
		if err := mustChange(result, err, "token", id); err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
}
