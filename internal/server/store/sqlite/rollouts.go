package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// CreateRollout stores a new rollout.
func (s *Store) CreateRollout(ctx context.Context, r *fleet.Rollout, events ...fleet.Event) error {
	return s.saveRollout(ctx, r, events, func(tx *sql.Tx, text string) error {
		var versions int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM versions WHERE configuration = ? AND number = ?`,
			r.Configuration, r.To.Version).Scan(&versions)
		if err == nil && versions == 0 {
			err = sql.ErrNoRows
		}
		if err != nil {
			return notFound(err, "version", fmt.Sprintf("%s@%d", r.Configuration, r.To.Version))
		}
		c, err := scanConfiguration(tx.QueryRowContext(ctx, selectConfiguration+` AND name = ?`, r.Configuration))
		if err != nil {
			return notFound(err, "configuration", r.Configuration)
		}
		if c.Released != r.From {
			return fmt.Errorf("version %d of %s is released, not %d: %w", c.Released.Version, c.Name, r.From.Version, store.ErrConflict)
		}
		if err := noneUnfinished(ctx, tx, r.Configuration); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO rollouts (id, configuration, unfinished, created_at, revision, document)
			VALUES (?, ?, ?, ?, 0, ?)`, r.ID, r.Configuration, !r.State.Final(), nanos(r.CreatedAt), text)
		if isDuplicate(err) {
			return fmt.Errorf("the id %s of a rollout is taken: %w", r.ID, store.ErrConflict)
		}
		return err
	})
}

// noneUnfinished makes sure that no rollout of a configuration goes on.
func noneUnfinished(ctx context.Context, tx *sql.Tx, configuration string) error {
	var unfinished int
	err := tx.QueryRowContext(ctx, `SELECT count(*) FROM rollouts WHERE configuration = ? AND unfinished = 1`, configuration).Scan(&unfinished)
	if err == nil && unfinished > 0 {
		err = fmt.Errorf("a rollout of %s is %w", configuration, store.ErrUnfinished)
	}
	return err
}

// SaveRollout replaces a rollout, and releases its version when it succeeded.
func (s *Store) SaveRollout(ctx context.Context, r *fleet.Rollout, events ...fleet.Event) error {
	return s.saveRollout(ctx, r, events, func(tx *sql.Tx, text string) error {
		result, err := tx.ExecContext(ctx, `UPDATE rollouts SET document = ?, unfinished = ? WHERE id = ? AND revision = ?`,
			text, !r.State.Final(), r.ID, r.Revision)
		if err := mustChange(result, err, "rollout", r.ID); err != nil {
			if errors.Is(err, store.ErrNotFound) {
				return fmt.Errorf("rollout %s has changed since revision %d: %w", r.ID, r.Revision, store.ErrConflict)
			}
			return err
		}
		if r.State != fleet.RolloutDone {
			return nil
		}
		result, err = tx.ExecContext(ctx, `UPDATE configurations SET released = ?, salt = ?, updated_at = ? WHERE name = ? AND deleted = 0`,
			r.To.Version, r.To.Salt, nanos(r.FinishedAt), r.Configuration)
		if err := mustChange(result, err, "configuration", r.Configuration); err != nil {
			return err
		}
		_, err = changed(ctx, tx, store.ChangedConfiguration, r.Configuration, false)
		return err
	})
}

// saveRollout is what both ways to write a rollout have in common.
func (s *Store) saveRollout(ctx context.Context, r *fleet.Rollout, events []fleet.Event, write func(*sql.Tx, string) error) error {
	if err := store.CheckTexts(events); err != nil {
		return err
	}
	text, err := encode(r)
	if err != nil {
		return err
	}
	var revision int64
	err = s.writing(ctx, func(tx *sql.Tx) error {
		if err := write(tx, string(text)); err != nil {
			return err
		}
		if revision, err = changed(ctx, tx, store.ChangedRollout, r.ID, false); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE rollouts SET revision = ? WHERE id = ?`, revision, r.ID); err != nil {
			return err
		}
		return s.insertEvents(ctx, tx, events)
	})
	if err == nil {
		r.Revision = revision
	}
	return err
}

func scanRollout(row scanner) (*fleet.Rollout, error) {
	var revision int64
	var text document[fleet.Rollout]
	if err := row.Scan(&revision, &text); err != nil {
		return nil, err
	}
	text.value.Revision = revision
	return &text.value, nil
}

// Rollout returns one.
func (s *Store) Rollout(ctx context.Context, id string) (*fleet.Rollout, error) {
	r, err := scanRollout(s.read.QueryRowContext(ctx, `SELECT revision, document FROM rollouts WHERE id = ?`, id))
	return r, notFound(err, "rollout", id)
}

// ListRollouts returns those of the query.
func (s *Store) ListRollouts(ctx context.Context, q store.RolloutQuery) ([]*fleet.Rollout, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT revision, document FROM rollouts
		WHERE (?1 = '' OR configuration = ?1) AND (NOT ?2 OR unfinished = 1) ORDER BY created_at DESC, id DESC LIMIT ?3`,
		q.Configuration, q.Unfinished, limited(q.Limit))
	return collectWith(rows, err, scanRollout)
}
