package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/statefile"
)

var (
	uidA = uuid.MustParse("0198f0a0-0000-7000-8000-00000000000a")
	uidB = uuid.MustParse("0198f0a0-0000-7000-8000-00000000000b")
	uidC = uuid.MustParse("0198f0a0-0000-7000-8000-00000000000c")
)

func loaded(t *testing.T, dir string, configured uuid.UUID) *identity {
	t.Helper()
	id, err := loadIdentity(Options{StorageDirectory: dir, InstanceUID: configured, Logger: zap.NewNop()})
	require.NoError(t, err)
	require.NotEqual(t, uuid.Nil, id.uid)
	return id
}

func TestIdentityGeneratedOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	first := loaded(t, dir, uuid.Nil)
	require.Equal(t, uuid.Version(7), first.uid.Version())
	require.Equal(t, uuid.RFC4122, first.uid.Variant())
	require.False(t, first.temporary)
	require.Equal(t, first.uid, loaded(t, dir, uuid.Nil).uid)
	require.NotEqual(t, first.uid, loaded(t, t.TempDir(), uuid.Nil).uid)
}

// TestIdentityPrecedence plays starts of the agent over one storage, each with what is configured and, perhaps, with a
// UID that the server assigns while it runs.
func TestIdentityPrecedence(t *testing.T) {
	t.Parallel()
	type start struct{ configured, want, assigned uuid.UUID }
	for name, starts := range map[string][]start{
		"configured": {{configured: uidA, want: uidA}, {configured: uidA, want: uidA}},
		"configured wins over another configured":   {{configured: uidA, want: uidA}, {configured: uidB, want: uidB}},
		"assigned wins over the same configured":    {{configured: uidA, want: uidA, assigned: uidB}, {configured: uidA, want: uidB}, {configured: uidA, want: uidB}},
		"newly configured wins over assigned":       {{configured: uidA, want: uidA, assigned: uidB}, {configured: uidC, want: uidC}},
		"first configured wins over assigned":       {{assigned: uidB}, {configured: uidC, want: uidC}},
		"assigned wins over generated":              {{assigned: uidB}, {want: uidB}},
		"assigned twice":                            {{assigned: uidB}, {want: uidB, assigned: uidC}, {want: uidC}},
		"assigned is kept after a newly configured": {{configured: uidA, want: uidA, assigned: uidB}, {configured: uidC, want: uidC, assigned: uidB}, {configured: uidC, want: uidB}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for i, s := range starts {
				id := loaded(t, dir, s.configured)
				if s.want != uuid.Nil {
					require.Equal(t, s.want, id.uid, "start %d", i)
				}
				if s.assigned != uuid.Nil {
					require.NoError(t, id.assign(s.assigned))
					require.Equal(t, s.assigned, id.uid)
				}
			}
		})
	}
}

func TestIdentityConfiguredWinsOverGenerated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	generated := loaded(t, dir, uuid.Nil).uid
	require.Equal(t, uidA, loaded(t, dir, uidA).uid)
	require.Equal(t, generated, loaded(t, dir, uuid.Nil).uid, "nothing is lost by trying a configured one")
}

func TestIdentityTemporary(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	dir := filepath.Join(file, "storage")

	id := loaded(t, dir, uuid.Nil)
	require.True(t, id.temporary)
	require.NotEqual(t, id.uid, loaded(t, dir, uuid.Nil).uid)
	require.Error(t, id.assign(uidB), "says that it holds for this process only")
	require.Equal(t, uidB, id.uid)
	require.False(t, id.temporary, "the server is not asked again")

	configured := loaded(t, dir, uidA)
	require.Equal(t, uidA, configured.uid)
	require.False(t, configured.temporary)
}

func TestIdentityDamaged(t *testing.T) {
	t.Parallel()
	for name, configured := range map[string]uuid.UUID{"generated": uuid.Nil, "configured": uidA} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, loaded(t, dir, configured).assign(uidB))
			path := filepath.Join(dir, identityFile)
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, data[:len(data)-3], 0o600))

			id := loaded(t, dir, configured)
			require.NotEqual(t, uidB, id.uid)
			require.False(t, id.temporary)
			aside, err := filepath.Glob(path + ".damaged-*")
			require.NoError(t, err)
			require.Len(t, aside, 1)
			require.Equal(t, id.uid, loaded(t, dir, configured).uid)
		})
	}
}

func TestIdentityStoredNil(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, statefile.Write(filepath.Join(dir, identityFile), storedIdentity{}))
	id := loaded(t, dir, uuid.Nil)
	require.Equal(t, id.uid, loaded(t, dir, uuid.Nil).uid)
}
