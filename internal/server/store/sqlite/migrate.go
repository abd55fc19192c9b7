package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks the file as Collie's: "coll".
const applicationID = 0x636f6c6c

// errForeign is what a database of something else comes to.
var errForeign = errors.New("it belongs to another program")

// migrations are the statements of each version of the schema, from 1. Their files are never changed once released.
func migrations() []string {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil // the pattern is a constant
	}
	statements := make([]string, 0, len(names))
	for _, name := range names {
		text, _ := migrationFiles.ReadFile(name)
		statements = append(statements, string(text))
	}
	return statements
}

// migrate brings the schema up to the last of the steps, each in a transaction.
func migrate(ctx context.Context, db *sql.DB, steps []string) error {
	version, err := schemaVersion(ctx, db)
	if err != nil {
		return err
	}
	if version > len(steps) {
		return fmt.Errorf("it was written by a newer program (schema %d, this one knows %d): run that one, or restore a backup from before",
			version, len(steps))
	}
	for ; version < len(steps); version++ {
		err := inTransaction(ctx, db, nil, func(tx *sql.Tx) error { return migrateOnce(ctx, tx, version+1, steps[version]) })
		if err != nil {
			return fmt.Errorf("upgrade to schema %d: %w", version+1, err)
		}
	}
	return nil
}

// migrateOnce does nothing if another process was faster.
func migrateOnce(ctx context.Context, tx *sql.Tx, version int, statements string) error {
	var there int
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&there); err != nil {
		return err
	}
	if there >= version {
		return nil
	}
	if _, err := tx.ExecContext(ctx, statements); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version, applied_at) VALUES (?, ?)`, version, time.Now().UnixNano())
	return err
}

// schemaVersion makes the table of versions in a new file, and refuses the file of another program.
func schemaVersion(ctx context.Context, db *sql.DB) (version int, err error) {
	err = inTransaction(ctx, db, nil, func(tx *sql.Tx) error {
		var application, tables int
		if err := tx.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&application); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&tables); err != nil {
			return err
		}
		if application != applicationID && (application != 0 || tables > 0) {
			return errForeign
		}
		for _, statement := range []string{
			fmt.Sprintf(`PRAGMA application_id = %d`, applicationID),
			`CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT`,
		} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&version)
	})
	return version, err
}
