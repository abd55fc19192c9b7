package control

import (
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

// Without a limit nothing is ever deleted, and nothing at the start of a server that was away for long.
func TestKept(t *testing.T) {
	t.Parallel()
	var later time.Duration
	keep := Keep{}
	w := newWorld(t, func(o *Options) {
		o.Now, o.Keep = func() time.Time { return time.Now().Add(later) }, keep
	})
	a := w.agent(nil)
	a.hello()
	a.goodbye()
	a.stored()
	w.end()
	later = 40 * 24 * time.Hour
	w.start()
	require.NoError(t, w.prune(t.Context()))
	w.round(t.Context())
	require.NotEmpty(t, w.kinds(a.uid.String()))
	a.stored()

	w.end()
	keep.Agents = 30 * 24 * time.Hour
	w.start()
	w.until("some rounds", func() (bool, any) {
		w.round(t.Context())
		return len(w.nudge) == 0, nil
	})
	a.stored()
}

// An effective configuration that is stored is not held in memory, however often it is reported.
func TestBodiesAreNotHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	config := func(body string) *protobufs.EffectiveConfig {
		return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte(body)}}}}
	}
	a.full.EffectiveConfig = config("a: 1")
	a.hello()
	first := a.stored().EffectiveConfigHash
	for range 2 {
		a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, EffectiveConfig: config("a: 1")})
		w.mu.Lock()
		held := len(w.unsaved.bodies)
		w.mu.Unlock()
		require.Zero(t, held)
	}
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, EffectiveConfig: config("b: 2")})
	body, err := w.db.EffectiveConfig(t.Context(), a.stored().EffectiveConfigHash)
	require.NoError(t, err)
	require.Equal(t, "b: 2", string(body))
	require.NotEqual(t, first, a.stored().EffectiveConfigHash)
}
