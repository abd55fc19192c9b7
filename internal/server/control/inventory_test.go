package control

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/store"
)

func TestEverythingIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(map[string]string{"service.name": "x", "service.version": "1.2"})
	a.full.AgentDescription.NonIdentifyingAttributes = []*protobufs.KeyValue{
		{Key: "n", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_IntValue{IntValue: 3}}},
		{Key: "list", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_ArrayValue{ArrayValue: &protobufs.ArrayValue{
			Values: []*protobufs.AnyValue{{Value: &protobufs.AnyValue_BoolValue{BoolValue: true}}},
		}}}},
		{Key: "nothing"},
		{Key: "bad", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_BytesValue{BytesValue: []byte{0xff}}}},
	}
	a.full.EffectiveConfig = &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{
		"": {Body: []byte("a: 1")}, "raw": {Body: []byte("b: 2\n")},
	}}}
	a.full.Health = &protobufs.ComponentHealth{LastError: "broken", ComponentHealthMap: map[string]*protobufs.ComponentHealth{"pipeline:traces": {Healthy: true}}}
	a.hello()
	stored := a.stored()
	require.Equal(t, map[string]string{"n": "3", "list": "[true]", "nothing": "", "bad": "/w=="}, stored.NonIdentifying)
	require.Equal(t, "1.2", stored.Version())
	require.Equal(t, everything, stored.Capabilities)
	require.True(t, stored.Connected)
	require.Equal(t, "http", stored.Transport)
	require.Equal(t, fleet.Unhealthy, stored.State())
	require.True(t, stored.Health.Components["pipeline:traces"].Healthy)
	body, err := w.db.EffectiveConfig(t.Context(), stored.EffectiveConfigHash)
	require.NoError(t, err)
	require.Equal(t, "# \na: 1\n---\n# raw\nb: 2\n", string(body))

	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, Health: &protobufs.ComponentHealth{Healthy: true}})
	a.goodbye()
	stored = a.stored()
	require.Equal(t, fleet.Disconnected, stored.State())
	require.Zero(t, stored.ConnectedSince)
	require.Equal(t, []fleet.Kind{fleet.AgentConnected, fleet.AgentUnhealthy, fleet.AgentHealthy, fleet.AgentDisconnected}, w.kinds(a.uid.String()))
}

func TestHeartbeatsWriteNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	a.stored()
	before, err := w.db.Revision(t.Context())
	require.NoError(t, err)
	for range 100 {
		a.poll()
	}
	require.NoError(t, w.save(t.Context()))
	after, err := w.db.Revision(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, w.touch(t.Context()))
	require.Less(t, time.Since(a.stored().LastSeen), 5*time.Second)
}

func TestForget(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	require.ErrorIs(t, w.Forget(t.Context(), "test", a.uid.String()), api.ErrConnected)
	require.ErrorIs(t, w.Forget(t.Context(), "test", uuid.NewString()), store.ErrNotFound)
	a.goodbye()
	require.NoError(t, w.Forget(t.Context(), "test", a.uid.String()))
	require.NoError(t, w.save(t.Context()))
	_, err := w.db.Agent(t.Context(), a.uid.String())
	require.ErrorIs(t, err, store.ErrNotFound)
	answer := a.poll()
	require.NotZero(t, answer.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState), "as if it had never been there")
}

// An agent that comes while it is forgotten is not waited for by whoever it waits for.
func TestForgottenWhileItComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.release("base", "x")
	a := w.agent(nil)
	a.hello()
	a.goodbye()
	a.stored()
	w.mu.Lock()
	done := make(chan error, 2)
	go func() { done <- w.Forget(context.Background(), "test", a.uid.String()) }()
	time.Sleep(20 * time.Millisecond) // it queues for mu first
	a.full.Capabilities |= uint64(fleet.AcceptsRestartCommand)
	go func() { a.hello(); done <- nil }()
	time.Sleep(20 * time.Millisecond)
	w.mu.Unlock()
	for range 2 {
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			buffer := make([]byte, 1<<20)
			require.Fail(t, "a deadlock", "%s", buffer[:runtime.Stack(buffer, true)])
		}
	}
}

// Who could not be forgotten can be forgotten again.
func TestForgetFails(t *testing.T) {
	t.Parallel()
	broken := &brokenStore{}
	w := newWorld(t, func(o *Options) { broken.Store, o.Store = o.Store, broken })
	a := w.agent(nil)
	a.hello()
	a.goodbye()
	a.stored()
	broken.fail.Store(true)
	require.Error(t, w.Forget(t.Context(), "test", a.uid.String()))
	broken.fail.Store(false)
	require.NoError(t, w.Forget(t.Context(), "test", a.uid.String()))
}

func TestRestartCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	require.ErrorIs(t, w.Restart(t.Context(), "test", a.uid.String()), api.ErrCapability)
	a.full.Capabilities |= uint64(fleet.AcceptsRestartCommand)
	a.poll()
	require.NoError(t, w.Restart(t.Context(), "test", a.uid.String()))
	require.NotNil(t, a.poll().Command)
	require.Contains(t, w.kinds(a.uid.String()), fleet.AgentRestarted)
	a.goodbye()
	require.ErrorIs(t, w.Restart(t.Context(), "test", a.uid.String()), api.ErrAway)
	require.ErrorIs(t, w.Restart(t.Context(), "test", "nonsense"), store.ErrNotFound)
}

// The set of components is asked for once for each hash, whoever has it.
func TestComponentsByHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	available := &protobufs.AvailableComponents{Hash: []byte{1}}
	ask := uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)
	a, b := w.agent(nil), w.agent(nil)
	for _, x := range []*testAgent{a, b} {
		x.full.Capabilities |= uint64(fleet.ReportsAvailableComponents)
		x.full.AvailableComponents = available
	}
	require.NotZero(t, a.hello().Flags&ask)
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, AvailableComponents: &protobufs.AvailableComponents{
		Hash: []byte{1}, Components: map[string]*protobufs.ComponentDetails{"receivers": {SubComponentMap: map[string]*protobufs.ComponentDetails{"otlp": {}}}},
	}})
	require.Zero(t, b.hello().Flags&ask)
	w.until("components", func() (bool, any) {
		components, err := w.Components(t.Context(), b.uid.String())
		return err == nil && components.Kinds["receivers"][0] == "otlp", err
	})
}

// What cannot be written is not offered; it is when the store works again.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	broken := &brokenStore{}
	w := newWorld(t, func(o *Options) { broken.Store, o.Store = o.Store, broken })
	a := w.agent(nil)
	a.hello()
	w.saved("base", "", "x")
	a.stored()
	id := w.rollOut("base", fleet.RolloutSpec{})
	w.until("an assignment", func() (bool, any) {
		r, err := w.db.Rollout(t.Context(), id)
		require.NoError(t, err)
		return len(r.Targets) == 1, r
	})
	b := w.agent(nil)
	broken.fail.Store(true)
	b.hello()
	for range 3 {
		b.poll()
	}
	require.Zero(t, b.offers)
	broken.fail.Store(false)
	a.untilOffered()
	a.applied()
	w.untilRollout(id, fleet.RolloutDone)
	b.untilOffered()
	require.Contains(t, w.kinds(b.uid.String()), fleet.AgentConnected, "nothing that happened meanwhile is lost")
}

var errFull = errors.New("no space left on device")

func (b *brokenStore) ForgetAgent(ctx context.Context, uid string, events ...fleet.Event) error {
	if b.fail.Load() {
		return errFull
	}
	return b.Store.ForgetAgent(ctx, uid, events...)
}

func (b *brokenStore) SaveAgents(ctx context.Context, w store.AgentBatch) error {
	if b.fail.Load() {
		return errFull
	}
	return b.Store.SaveAgents(ctx, w)
}
