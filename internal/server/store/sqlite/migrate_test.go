package sqlite

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// TestUpgrade goes from version 1, with something in it, to the newest.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "collie.db")
	db, err := sql.Open("sqlite", source(path, "_txlock=immediate"))
	require.NoError(t, err)
	require.NoError(t, migrate(t.Context(), db, migrations()[:1]))
	_, err = db.ExecContext(t.Context(), `INSERT INTO configurations VALUES ('base', 1, 0, '', 1, 1, 0)`)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), `SELECT * FROM tokens`)
	require.ErrorContains(t, err, "no such table", "version 1 has no tokens")
	require.NoError(t, db.Close())

	for range 2 {
		s, err := Open(t.Context(), path)
		require.NoError(t, err)
		c, err := s.Configuration(t.Context(), "base")
		require.NoError(t, err)
		require.Equal(t, 1, c.Latest)
		_, err = s.ListTokens(t.Context())
		require.NoError(t, err)
		version, err := schemaVersion(t.Context(), s.write)
		require.NoError(t, err)
		require.Equal(t, len(migrations()), version)
		require.NoError(t, s.Close())
	}
}

// TestAFailedUpgradeChangesNothing: each step is a transaction.
func TestAFailedUpgradeChangesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "collie.db")
	db, err := sql.Open("sqlite", source(path, "_txlock=immediate"))
	require.NoError(t, err)
	defer db.Close()
	steps := append(migrations(), `CREATE TABLE half (x); INSERT INTO no_such VALUES (1);`)
	require.ErrorContains(t, migrate(t.Context(), db, steps), fmt.Sprintf("upgrade to schema %d", len(steps)))
	_, err = db.ExecContext(t.Context(), `SELECT * FROM half`)
	require.ErrorContains(t, err, "no such table")
	require.NoError(t, migrate(t.Context(), db, migrations()))
}

func TestDriverSettings(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "collie.db"))
	require.NoError(t, err)
	defer s.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "10000"} {
		var got string
		require.NoError(t, s.write.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		require.Equal(t, want, got, pragma)
	}
	_, err = s.read.ExecContext(t.Context(), `DELETE FROM agents`)
	require.ErrorContains(t, err, "readonly")
	_, err = s.write.ExecContext(t.Context(), `INSERT INTO agent_seen VALUES ('nobody', 1)`)
	require.ErrorContains(t, err, "FOREIGN KEY")
	require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{}}))
}
