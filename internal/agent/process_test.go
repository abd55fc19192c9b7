package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// acquire gets the session of id and begins it.
func acquire(t *testing.T, id string, opts Options, settings Settings) *Session {
	t.Helper()
	s, err := Acquire(id, opts, settings, func() {})
	require.NoError(t, err)
	s.SetCapabilities(reportsAll)
	s.Begin()
	return s
}

func TestReloadKeepsConnection(t *testing.T) {
	t.Parallel()
	f := serve(t, &fakeServer{})
	id, opts := t.Name(), Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}
	s := acquire(t, id, opts, f.settings(t, WebSocket))
	f.messages(t, 1)
	for i := range 3 {
		require.NoError(t, Release(t.Context(), id, true))
		require.Same(t, s, acquire(t, id, opts, f.settings(t, WebSocket)))
		s.SetHealth(healthOf(i))
		f.messages(t, 2+i)
	}
	require.NoError(t, Release(t.Context(), id, false))
	require.NoError(t, Release(t.Context(), id, false), "twice does no harm")
	all := f.messages(t, 5)
	require.Len(t, all, 5)
	require.NotNil(t, all[4].AgentDisconnect)
	require.Equal(t, 1, f.conns)

	after := acquire(t, id, opts, f.settings(t, WebSocket))
	require.NotSame(t, s, after)
	require.Equal(t, s.InstanceUID(), after.InstanceUID(), "the identity is in the storage")
	f.messages(t, 6)
	require.NoError(t, Release(t.Context(), id, false))
}

// TestReloadWithOtherOptions: the session before says goodbye before the next one comes.
func TestReloadWithOtherOptions(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, o *Options){
		"uid":     func(_ *testing.T, o *Options) { o.InstanceUID = uidB },
		"no uid":  func(_ *testing.T, o *Options) { o.InstanceUID = uuid.Nil },
		"storage": func(t *testing.T, o *Options) { o.StorageDirectory = t.TempDir() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, &fakeServer{})
			id, opts := t.Name(), Options{StorageDirectory: t.TempDir(), InstanceUID: uidA, Logger: zap.NewNop()}
			s := acquire(t, id, opts, f.settings(t, WebSocket))
			f.messages(t, 1)
			require.NoError(t, Release(t.Context(), id, true))
			change(t, &opts)
			next := acquire(t, id, opts, f.settings(t, WebSocket))
			require.NotSame(t, s, next)
			all := f.messages(t, 3)
			require.NotNil(t, all[1].AgentDisconnect)
			require.Equal(t, uidA[:], all[1].InstanceUid)
			uid := next.InstanceUID()
			require.Equal(t, uid[:], all[2].InstanceUid)
			require.EqualValues(t, 0, all[2].SequenceNum)
			require.NoError(t, Release(t.Context(), id, false))
		})
	}
}

func TestTwoIDs(t *testing.T) {
	t.Parallel()
	f := serve(t, &fakeServer{})
	one := acquire(t, t.Name()+"/1", Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}, f.settings(t, WebSocket))
	two := acquire(t, t.Name()+"/2", Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}, f.settings(t, WebSocket))
	require.NotSame(t, one, two)
	require.NotEqual(t, one.InstanceUID(), two.InstanceUID())
	f.await(t, func() bool { return f.conns == 2 && len(f.got) == 2 })
	require.NoError(t, Release(t.Context(), t.Name()+"/1", false))
	two.SetHealth(healthOf(1))
	f.messages(t, 4)
	require.NoError(t, Release(t.Context(), t.Name()+"/2", false))
	require.NoError(t, Release(t.Context(), t.Name()+"/never", true))
}

// TestAbandoned: a configuration without the extension leaves a session that nobody comes for.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	id := t.Name()
	synctest.Test(t, func(t *testing.T) {
		opts := Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}
		s, err := Acquire(id, opts, Settings{}, func() {})
		require.NoError(t, err)
		require.NoError(t, Release(t.Context(), id, true))
		time.Sleep(lingerFor - time.Second) // virtual
		again, err := Acquire(id, opts, Settings{}, func() {})
		require.NoError(t, err)
		require.Same(t, s, again)
		time.Sleep(2 * lingerFor)
		require.NoError(t, s.ctx.Err(), "in use")
		require.NoError(t, Release(t.Context(), id, true))
		time.Sleep(lingerFor)
		synctest.Wait()
		require.Error(t, s.ctx.Err())
		require.NoError(t, Release(t.Context(), id, false), "gone already")
	})
}

func healthOf(i int) *protobufs.ComponentHealth {
	return &protobufs.ComponentHealth{StartTimeUnixNano: uint64(i + 1)}
}
