package control

import (
	"testing"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
)

const managedResource = "kind: OpenTelemetryCollector\nmetadata:\n  labels:\n    opentelemetry.io/opamp-managed: \"true\"\n"

// bridge is an OpAMPBridge with the resources of these names.
func (w *world) bridge(names ...string) *testAgent {
	a := w.agent(map[string]string{"service.name": "io.opentelemetry.operator-opamp-bridge"})
	a.full.AgentDescription.NonIdentifyingAttributes = keyValues(map[string]string{
		"opentelemetry.io/opamp.bridge.mode": "operator", "k8s.cluster.name": "one", "host.name": "pod-" + a.uid.String(),
	})
	files := map[string]*protobufs.AgentConfigFile{"ns/reported": {Body: []byte("metadata: {labels: {opentelemetry.io/opamp-reporting: \"true\"}}")}}
	for _, name := range names {
		files[name] = &protobufs.AgentConfigFile{Body: []byte(managedResource)}
	}
	a.full.EffectiveConfig = &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: files}}
	return a
}

// A set that does not name all that a bridge manages deletes Collectors: it is withheld, unless somebody insists.
func TestBridgeIsNotMadeToDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	b := w.bridge("ns/gateway", "ns/agent")
	b.hello()
	w.saved("ns/gateway", "", "kind: x\n")
	w.rollOut("ns/gateway", fleet.RolloutSpec{})
	w.until("the reason", func() (bool, any) {
		b.poll()
		s := b.stored()
		return s.RemoteConfig.Withheld != "", s.RemoteConfig
	})
	require.Zero(t, b.offers)
	require.Contains(t, b.stored().RemoteConfig.Withheld, "ns/agent")
	require.Contains(t, w.kinds(b.uid.String()), fleet.AgentWithheld)

	w.saved("ns/agent", "", "kind: y\n")
	w.rollOut("ns/agent", fleet.RolloutSpec{})
	b.untilOffered()
	require.Equal(t, map[string]string{"ns/gateway": "kind: x\n", "ns/agent": "kind: y\n"}, b.files())
	require.Empty(t, b.stored().RemoteConfig.Withheld)
}

func TestBridgeForced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	b := w.bridge("ns/gateway", "ns/agent")
	b.hello()
	w.saved("ns/gateway", "", "kind: x\n")
	w.rollOut("ns/gateway", fleet.RolloutSpec{Force: true})
	b.untilOffered()
	require.Equal(t, map[string]string{"ns/gateway": "kind: x\n"}, b.files())
}

// Force is for what is rolled out with it, and not for whatever comes later.
func TestForceDoesNotLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	b := w.bridge("ns/gateway")
	b.hello()
	w.saved("ns/gateway", "", "kind: x\n")
	id := w.rollOut("ns/gateway", fleet.RolloutSpec{Force: true})
	b.untilOffered()
	b.applied()
	w.untilRollout(id, fleet.RolloutDone)
	b.full.EffectiveConfig.ConfigMap.ConfigMap["ns/new"] = &protobufs.AgentConfigFile{Body: []byte(managedResource)}
	b.hello()
	w.saved("ns/other", "", "kind: y\n")
	w.rollOut("ns/other", fleet.RolloutSpec{})
	w.until("the reason", func() (bool, any) {
		b.poll()
		s := b.stored()
		return s.RemoteConfig.Withheld != "", s.RemoteConfig
	})
	require.Equal(t, 1, b.offers)
}

// A bridge that does not say what it manages, after it said so as another process, or without any files, is not known.
func TestBridgeThatSaysNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	b := w.bridge("ns/agent")
	managed := func() map[string]struct{} {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.agents[b.uid].managed
	}
	b.hello()
	require.NotNil(t, managed())
	b.full.EffectiveConfig, b.seq = nil, 100
	answer := b.hello()
	require.NotZero(t, answer.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState))
	require.Nil(t, managed())
	b.full.EffectiveConfig = &protobufs.EffectiveConfig{}
	b.hello()
	require.Nil(t, managed())
	b.full.EffectiveConfig.ConfigMap = &protobufs.AgentConfigMap{}
	b.hello()
	require.NotNil(t, managed(), "it manages nothing, and says so")
}

// What a bridge manages is asked for before it is offered anything.
func TestBridgeOfWhichNothingIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.saved("ns/gateway", "", "kind: x\n")
	b := w.bridge("ns/agent")
	known := b.full.EffectiveConfig
	b.full.EffectiveConfig = nil
	answer := b.hello()
	require.NotZero(t, answer.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState))
	w.rollOut("ns/gateway", fleet.RolloutSpec{})
	for range 5 {
		w.round(t.Context())
		b.poll()
	}
	require.Zero(t, b.offers)
	b.full.EffectiveConfig = known
	b.hello()
	for range 5 {
		w.round(t.Context())
		b.poll()
	}
	require.Zero(t, b.offers)
}

// A bridge has a new UID after each restart, and stays one row all the same.
func TestBridgeRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	b := w.bridge("ns/agent")
	b.hello()
	b.send(&protobufs.AgentToServer{Capabilities: b.full.Capabilities, AgentDisconnect: &protobufs.AgentDisconnect{}})

	again := w.bridge("ns/agent")
	answer := again.hello()
	require.Equal(t, b.uid[:], answer.GetAgentIdentification().GetNewInstanceUid())
	was := again.uid
	again.uid = b.uid
	again.poll()
	again.hello()
	w.until("one row", func() (bool, any) {
		all, err := w.db.AllAgents(t.Context())
		require.NoError(t, err)
		return len(all) == 1 && all[0].UID == b.uid.String() && all[0].Connected, all
	})
	require.NotContains(t, w.agents, was)
}

func TestTwoBridgesAreTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	one := w.bridge()
	one.hello()
	two := w.bridge()
	require.Nil(t, two.hello().AgentIdentification, "the other one is there")
	nobody := uuid.Nil
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Equal(t, nobody, w.sameBridge(w.agents[two.uid]))
}

func TestBridgeHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	b := w.bridge()
	b.full.Health = &protobufs.ComponentHealth{Healthy: true, ComponentHealthMap: map[string]*protobufs.ComponentHealth{
		"ns/good": {Healthy: true, Status: "3/3"}, "ns/bad": {Healthy: true, Status: "0/3"},
	}}
	b.hello()
	stored := b.stored()
	require.Equal(t, fleet.Unhealthy, stored.State())
	require.Equal(t, "ns/bad: 0 of 3 replicas are ready", stored.Health.LastError)
	require.True(t, stored.Health.Components["ns/good"].Healthy)
}
