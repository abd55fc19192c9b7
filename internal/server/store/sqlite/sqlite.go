// Package sqlite keeps the control plane's memory in one SQLite file, without C (modernc.org/sqlite). One connection writes,
// each transaction begun as a writer (BEGIN IMMEDIATE); a pool reads beside it (WAL). What a method has returned from is on
// disk (synchronous=FULL). The meaning of what is stored is package fleet's; the contract is package store's.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	driver "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/collie-otel/collie/internal/server/store"
)

const (
	readers = 4
	// busyTimeout is in milliseconds: how long to wait for another process, such as a backup's.
	busyTimeout = 10_000
)

// Store is a store.Store in a file.
type Store struct {
	path  string
	write *sql.DB // one connection
	read  *sql.DB
	// prepared belong to their connections and are closed with them.
	prepared statements
	index    agentIndex
	close    func() error
}

var _ store.Store = (*Store)(nil)

// Open opens the file, makes it if it is not there (mode 0600), and brings it up to this program's schema.
func Open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, err)
	}
	if err := prepareFile(path); err != nil {
		return nil, err
	}
	s := &Store{path: path}
	if s.write, err = sql.Open("sqlite", source(path, "_txlock=immediate", "_pragma=synchronous(FULL)")); err != nil {
		return nil, explain(path, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", source(path, "_pragma=query_only(1)")); err != nil {
		return nil, errors.Join(explain(path, err), s.write.Close())
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	// The writer is closed last: it folds the log into the file.
	s.close = sync.OnceValue(func() error { return errors.Join(s.read.Close(), s.write.Close()) })
	if err = migrate(ctx, s.write, migrations()); err == nil {
		err = s.prepared.prepare(ctx, s.write, s.read)
	}
	if err != nil {
		return nil, errors.Join(explain(path, err), s.Close())
	}
	return s, nil
}

// Close closes the file. It may be called twice.
func (s *Store) Close() error { return s.close() }

func source(path string, options ...string) string {
	options = append(options, "_pragma=journal_mode(WAL)", "_pragma=foreign_keys(1)")
	query := fmt.Sprintf("_pragma=busy_timeout(%d)", busyTimeout)
	for _, o := range options {
		query += "&" + o
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query}).String()
}

// prepareFile sees to it that only this user can read the file, also what SQLite puts beside it, which takes over its mode.
func prepareFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("database %s: cannot be opened for writing; check the directory and its owner: %w", path, err)
	}
	if err := errors.Join(file.Chmod(0o600), file.Close()); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	// SQLite makes files beside it.
	probe, err := os.CreateTemp(filepath.Dir(path), ".probe-*")
	if err != nil {
		return fmt.Errorf("database %s: its directory must be writable: %w", path, err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// explain adds what to do to the errors that a person has to handle.
func explain(path string, err error) error {
	if code := errorCode(err) & 0xff; code == codes.SQLITE_NOTADB || code == codes.SQLITE_CORRUPT {
		return fmt.Errorf("database %s is damaged or no SQLite file; restore a backup, or move it away to begin anew: %w", path, err)
	}
	return fmt.Errorf("database %s: %w", path, err)
}

func errorCode(err error) int {
	var e *driver.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

func isDuplicate(err error) bool {
	code := errorCode(err)
	return code == codes.SQLITE_CONSTRAINT_UNIQUE || code == codes.SQLITE_CONSTRAINT_PRIMARYKEY
}

// writing runs one transaction of the writer.
func (s *Store) writing(ctx context.Context, do func(*sql.Tx) error) error {
	return inTransaction(ctx, s.write, nil, do)
}

// reading runs statements that see one moment.
func (s *Store) reading(ctx context.Context, do func(*sql.Tx) error) error {
	return inTransaction(ctx, s.read, &sql.TxOptions{ReadOnly: true}, do)
}

func inTransaction(ctx context.Context, db *sql.DB, options *sql.TxOptions, do func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, options)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

// ignoreDone: a transaction whose context has ended is rolled back already.
func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// notFound turns the driver's word for no row into the contract's.
func notFound(err error, what, key string) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%s %.200q: %w", what, key, store.ErrNotFound)
	}
	return err
}

// mustChange returns ErrNotFound where a statement found no row.
func mustChange(result sql.Result, err error, what, key string) error {
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return notFound(sql.ErrNoRows, what, key)
}

// limited is the limit that a query asks for.
func limited(limit int) int {
	if limit <= 0 {
		return 100
	}
	return min(limit, 1000)
}
