package sqlite_test

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
	"github.com/collie-otel/collie/internal/server/store/storetest"
)

// childEnv names the file that a child process writes until it is killed.
const childEnv = "COLLIE_TEST_SQLITE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		goleak.VerifyTestMain(m)
	}
	os.Exit(m.Run())
}

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "collie.db")) })
}

// TestChild is a child process of TestKill, and nothing by itself.
func TestChild(t *testing.T) {
	t.Parallel()
	if path := os.Getenv(childEnv); path != "" {
		require.NoError(t, storetest.WriteForever(t.Context(), open(t, path), os.Stdout))
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	for _, after := range []int{0, 3, 40} {
		path := filepath.Join(t.TempDir(), "collie.db")
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
		child.Env = append(os.Environ(), childEnv+"="+path)
		storetest.Kill(t, child, after, func(t *testing.T) store.Store { return open(t, path) })
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a name with ? and # and %41.db")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	s := open(t, path)
	require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{storetest.NewAgent(1)}}))
	require.NoError(t, s.Backup(t.Context(), path+".backup"))
	files, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, files, 4, "the file, its log, its shared memory, the backup: %v", files)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), f.Name())
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "collie.db"))
	require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{storetest.NewAgent(1)}}))
	backup := filepath.Join(dir, "backup.db")
	require.NoError(t, s.Backup(t.Context(), backup))
	require.ErrorContains(t, s.Backup(t.Context(), backup), "it will not be overwritten")
	require.ErrorContains(t, s.Backup(t.Context(), filepath.Join(dir, "no", "such")), "no such file")
	require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{storetest.NewAgent(2)}}))

	copied := open(t, backup)
	page, err := copied.ListAgents(t.Context(), store.AgentQuery{})
	require.NoError(t, err)
	require.Equal(t, 1, page.Total, "as of the backup")
	require.Equal(t, storetest.UID(1), page.Agents[0].UID)
}

// TestListsFollowOtherWriters: the index in memory is right whoever writes the file.
func TestListsFollowOtherWriters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "collie.db")
	one, other := open(t, path), open(t, path)
	for n := range 5 {
		require.NoError(t, one.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{storetest.NewAgent(n)}}))
		page, err := other.ListAgents(t.Context(), store.AgentQuery{})
		require.NoError(t, err)
		require.Equal(t, n+1, page.Total)
	}
}

func TestErrorsOfOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := sqlite.Open(t.Context(), filepath.Join(dir, "no", "such", "collie.db"))
	require.ErrorContains(t, err, "check the directory and its owner")

	garbage := filepath.Join(dir, "garbage.db")
	require.NoError(t, os.WriteFile(garbage, make([]byte, 8192), 0o600))
	require.NoError(t, os.WriteFile(garbage, []byte("this is a text and no database, of some length; it goes on until it is longer than a header of SQLite"), 0o600))
	_, err = sqlite.Open(t.Context(), garbage)
	require.ErrorContains(t, err, "damaged or no SQLite file; restore a backup")

	newer := filepath.Join(dir, "newer.db")
	s, err := sqlite.Open(t.Context(), newer)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	change(t, newer, `INSERT INTO schema_version VALUES (99, 0)`)
	_, err = sqlite.Open(t.Context(), newer)
	require.ErrorContains(t, err, "written by a newer program (schema 99")

	foreign := filepath.Join(dir, "foreign.db")
	change(t, foreign, `CREATE TABLE songs (title TEXT)`)
	_, err = sqlite.Open(t.Context(), foreign)
	require.ErrorContains(t, err, "belongs to another program")
}

func change(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
	require.NoError(t, db.Close())
}
