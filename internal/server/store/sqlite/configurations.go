package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

const (
	selectConfiguration = `SELECT name, latest, released, salt, created_at, updated_at FROM configurations WHERE deleted = 0`
	selectVersion       = `SELECT configuration, number, selector, priority, hash, author, created_at`
)

func scanConfiguration(row scanner) (c fleet.Configuration, err error) {
	var created, updated int64
	err = row.Scan(&c.Name, &c.Latest, &c.Released.Version, &c.Released.Salt, &created, &updated)
	c.CreatedAt, c.UpdatedAt = fromNanos(created), fromNanos(updated)
	return c, err
}

func scanVersion(row scanner, more ...any) (v fleet.Version, err error) {
	var selector string
	var created int64
	into := append([]any{&v.Configuration, &v.Number, &selector, &v.Priority, &v.Hash, &v.Author, &created}, more...)
	if err := row.Scan(into...); err != nil {
		return v, err
	}
	v.CreatedAt = fromNanos(created)
	v.Selector, err = fleet.ParseSelector(selector)
	return v, err
}

// SaveVersion appends a version.
func (s *Store) SaveVersion(ctx context.Context, v fleet.Version, expected int, events ...fleet.Event) (fleet.Version, error) {
	if err := v.Validate(); err != nil {
		return v, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if err := store.CheckTexts(events); err != nil {
		return v, err
	}
	events = slices.Clone(events)
	v.Hash, v.CreatedAt = fleet.ContentHash(v.Body), v.CreatedAt.UTC()
	err := s.writing(ctx, func(tx *sql.Tx) error {
		if err := checkLatest(ctx, tx, v.Configuration, expected); err != nil {
			return err
		}
		at := nanos(v.CreatedAt)
		err := tx.QueryRowContext(ctx, `INSERT INTO configurations (name, latest, released, salt, created_at, updated_at, deleted)
				VALUES (?1, 1, 0, '', ?2, ?2, 0)
			ON CONFLICT (name) DO UPDATE SET latest = latest + 1, updated_at = excluded.updated_at,
				created_at = CASE deleted WHEN 1 THEN excluded.created_at ELSE created_at END, deleted = 0
			RETURNING latest`, v.Configuration, at).Scan(&v.Number)
		if err != nil {
			return err
		}
		body := v.Body
		if body == nil {
			body = []byte{}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO versions (configuration, number, selector, priority, hash, author, created_at, body)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, v.Configuration, v.Number, v.Selector.String(), v.Priority, v.Hash, v.Author, at, body)
		if err != nil {
			return err
		}
		if _, err := changed(ctx, tx, store.ChangedConfiguration, v.Configuration, false); err != nil {
			return err
		}
		for i := range events {
			events[i].Version = v.Number
		}
		return s.insertEvents(ctx, tx, events)
	})
	return v, err
}

// checkLatest holds the newest version against what the caller expects.
func checkLatest(ctx context.Context, tx *sql.Tx, name string, expected int) error {
	c, err := scanConfiguration(tx.QueryRowContext(ctx, selectConfiguration+` AND name = ?`, name))
	if err = notFound(err, "configuration", name); err != nil && !isGone(err) {
		return err
	}
	if expected != store.AnyVersion && c.Latest != expected {
		return fmt.Errorf("the newest version of %s is %d, not %d: %w", name, c.Latest, expected, store.ErrConflict)
	}
	return nil
}

// Configuration returns one.
func (s *Store) Configuration(ctx context.Context, name string) (fleet.Configuration, error) {
	c, err := scanConfiguration(s.read.QueryRowContext(ctx, selectConfiguration+` AND name = ?`, name))
	return c, notFound(err, "configuration", name)
}

// ListConfigurations returns all by name.
func (s *Store) ListConfigurations(ctx context.Context) ([]fleet.Configuration, error) {
	rows, err := s.read.QueryContext(ctx, selectConfiguration+` ORDER BY name`)
	return collectWith(rows, err, scanConfiguration)
}

// Version returns one with its body.
func (s *Store) Version(ctx context.Context, name string, number int) (fleet.Version, error) {
	var body []byte
	v, err := scanVersion(s.read.QueryRowContext(ctx, selectVersion+`, body FROM versions WHERE configuration = ? AND number = ?`,
		name, number), &body)
	v.Body = body
	return v, notFound(err, "version", fmt.Sprintf("%s@%d", name, number))
}

// ListVersions returns all without bodies.
func (s *Store) ListVersions(ctx context.Context, name string) ([]fleet.Version, error) {
	rows, err := s.read.QueryContext(ctx, selectVersion+` FROM versions WHERE configuration = ? ORDER BY number DESC`, name)
	versions, err := collectWith(rows, err, func(row scanner) (fleet.Version, error) { return scanVersion(row) })
	if err == nil && len(versions) == 0 {
		err = notFound(sql.ErrNoRows, "configuration", name)
	}
	return versions, err
}

// DeleteConfiguration deletes a configuration with its versions.
func (s *Store) DeleteConfiguration(ctx context.Context, name string, events ...fleet.Event) error {
	if err := store.CheckTexts(events); err != nil {
		return err
	}
	return s.writing(ctx, func(tx *sql.Tx) error {
		if err := noneUnfinished(ctx, tx, name); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `UPDATE configurations SET deleted = 1, released = 0, salt = '' WHERE name = ? AND deleted = 0`, name)
		if err := mustChange(result, err, "configuration", name); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM versions WHERE configuration = ?`, name); err != nil {
			return err
		}
		if _, err := changed(ctx, tx, store.ChangedConfiguration, name, true); err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
}

// collectWith reads all rows.
func collectWith[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
