package agent

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStateFileIsNeverHalfBelieved(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	var got map[string]int
	require.ErrorIs(t, readState(path, &got), fs.ErrNotExist)
	require.NoError(t, writeState(path, map[string]int{"a": 1}))
	require.NoError(t, readState(path, &got))
	require.Equal(t, map[string]int{"a": 1}, got)

	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	damaged := [][]byte{[]byte("[]"), []byte(`{"schema_version":2}`)}
	for n := range whole { // cut off anywhere
		damaged = append(damaged, whole[:n])
	}
	for i := range whole { // one bit off anywhere: noticed, or in what does not count
		flipped := append([]byte{}, whole...)
		flipped[i] ^= 1
		damaged = append(damaged, flipped)
	}
	for _, content := range damaged {
		require.NoError(t, os.WriteFile(path, content, 0o600))
		var got map[string]int
		err := readState(path, &got)
		if err == nil {
			require.Equal(t, map[string]int{"a": 1}, got, "%s", content)
			continue
		}
		require.ErrorIs(t, err, errSetAside, "%s", content)
		require.NoFileExists(t, path)
	}
	require.NoError(t, writeState(path, map[string]int{"b": 2}))
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), zap.NewNop()
	load := func(configured uuid.UUID) *identity {
		id, err := loadIdentity(dir, configured, log)
		require.NoError(t, err)
		return id
	}
	generated := load(uuid.Nil)
	require.EqualValues(t, 7, generated.uid.Version())
	require.False(t, generated.temporary)
	require.Equal(t, generated.uid, load(uuid.Nil).uid, "kept")

	configured, assigned := uuid.New(), uuid.New()
	id := load(configured)
	require.Equal(t, configured, id.uid)
	require.NoError(t, id.assign(assigned))
	require.Equal(t, assigned, load(configured).uid, "the server's holds")
	require.Equal(t, configured[:], load(configured).configured[:])
	other := uuid.New()
	require.Equal(t, other, load(other).uid, "until somebody configures another one")

	require.NoError(t, os.WriteFile(filepath.Join(dir, identityFile), []byte("torn"), 0o600))
	require.NotEqual(t, uuid.Nil, load(uuid.Nil).uid)

	blocked := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(blocked, nil, 0o600))
	id, err := loadIdentity(filepath.Join(blocked, "below"), uuid.Nil, log)
	require.NoError(t, err)
	require.True(t, id.temporary)
}

// Whatever connections last and whatever the server asks for, never more than five begin within ten seconds.
func TestBackoffBoundsConnections(t *testing.T) {
	t.Parallel()
	for _, worked := range []time.Duration{0, time.Millisecond, time.Second, 3 * time.Second, 9900 * time.Millisecond, 10 * time.Second, time.Minute} {
		for _, asked := range []time.Duration{0, time.Nanosecond, time.Second, time.Minute} {
			var b backoff
			var starts []time.Duration
			for now := time.Duration(0); len(starts) < 200; {
				starts = append(starts, now)
				wait := b.next(worked, asked)
				require.GreaterOrEqual(t, wait, asked)
				now += worked + wait
			}
			for i := 5; i < len(starts); i++ {
				require.Greater(t, starts[i]-starts[i-5], 10*time.Second, "connections of %v, asked for %v", worked, asked)
			}
		}
	}
	var b backoff
	require.LessOrEqual(t, b.next(0, 1000*time.Hour), 2*maxRetryAfter)
}

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "7": 7 * time.Second, "99999999": maxRetryAfter,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		require.Equal(t, want, parseRetryAfter(value, now), value)
	}
}
