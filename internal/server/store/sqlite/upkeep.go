package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/collie-otel/collie/internal/server/store"
)

// Prune deletes what is older than its retention.
func (s *Store) Prune(ctx context.Context, keep store.Retention) (pruned store.Pruned, err error) {
	err = s.writing(ctx, func(tx *sql.Tx) error {
		pruned = store.Pruned{}
		if !keep.AgentsSince.IsZero() {
			unseen, err := unseenAgents(ctx, tx, keep.AgentsSince)
			if err != nil {
				return err
			}
			for uid := range unseen {
				if err := deleteAgent(ctx, tx, uid); err != nil {
					return err
				}
			}
			pruned.Agents = len(unseen)
		}
		if pruned.Bodies, err = count(tx.ExecContext(ctx,
			`DELETE FROM bodies WHERE NOT EXISTS (SELECT 1 FROM agents WHERE effective_hash = hash)`)); err != nil {
			return err
		}
		if keep.EventsSince.IsZero() {
			return nil
		}
		pruned.Events, err = count(tx.ExecContext(ctx, `DELETE FROM events WHERE time < ?`, nanos(keep.EventsSince)))
		return err
	})
	return pruned, err
}

func count(result sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// Backup writes a copy of one moment to a new file (mode 0600), while others go on reading and writing.
func (s *Store) Backup(ctx context.Context, path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("backup to %s: there is a file already; it will not be overwritten: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("backup to %s: %w", path, err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("backup to %s: %w", path, err)
	}
	// A connection of its own: the writer goes on, and the readers' pool refuses anything that writes, if only to a copy.
	db, err := sql.Open("sqlite", source(s.path))
	if err == nil {
		// VACUUM INTO takes an empty file for a new one.
		_, err = db.ExecContext(ctx, `VACUUM INTO ?`, path)
		err = errors.Join(err, db.Close())
	}
	if err == nil {
		err = syncFile(path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("backup to %s: %w", path, err), os.Remove(path))
	}
	return nil
}

func syncFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
