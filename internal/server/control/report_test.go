package control

import (
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

// unsetStatus is what an agent without memory says.
var unsetStatus = &protobufs.RemoteConfigStatus{}

// settled is an agent that has applied what was released.
func settled(t *testing.T) (*world, *testAgent) {
	w := newWorld(t, nil)
	w.saved("base", "", "a: 1\n")
	w.untilRollout(w.rollOut("base", fleet.RolloutSpec{}), fleet.RolloutDone)
	a := w.agent(nil)
	a.hello()
	require.Equal(t, 1, a.offers)
	a.applied()
	require.Equal(t, 1, a.offers)
	return w, a
}

func TestAnAgentThatGoesBackIsOfferedItWithTheAnswer(t *testing.T) {
	t.Parallel()
	_, a := settled(t)
	back := func() *protobufs.ServerToAgent {
		return a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, RemoteConfigStatus: &protobufs.RemoteConfigStatus{
			LastRemoteConfigHash: []byte("another"), Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED,
		}})
	}
	require.NotNil(t, back().RemoteConfig)
	a.applied()
	require.Nil(t, back().RemoteConfig, "who always goes back is offered it only now and then")
	stored := a.stored()
	require.Equal(t, fleet.Drifted, stored.State())
}

func TestAnAgentThatGoesBackIsOfferedItsConnectionsWithTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	require.NoError(t, w.SaveConnection(t.Context(), "test", apiv1.Connection{Name: "own", ConnectionOffer: apiv1.ConnectionOffer{
		OwnMetrics: &apiv1.Destination{Endpoint: "https://otlp.example.com/v1/metrics"},
	}}))
	a := w.agent(nil)
	a.full.Capabilities |= uint64(fleet.ReportsOwnMetrics | fleet.ReportsConnectionSettingsStatus)
	hash := a.hello().GetConnectionSettings().GetHash()
	require.NotEmpty(t, hash)
	has := func(hash []byte) *protobufs.ConnectionSettingsOffers {
		return a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, ConnectionSettingsStatus: &protobufs.ConnectionSettingsStatus{
			LastConnectionSettingsHash: hash, Status: protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED,
		}}).ConnectionSettings
	}
	require.Nil(t, has(hash))
	require.Equal(t, hash, has([]byte("another")).GetHash())
	require.Nil(t, has(hash))
	require.Nil(t, has([]byte("another")), "who always goes back is offered it only now and then")
}

func TestAProcessWithoutMemoryIsOfferedItWithTheAnswer(t *testing.T) {
	t.Parallel()
	_, a := settled(t)
	a.seq, a.full.RemoteConfigStatus = 0, unsetStatus
	a.hello()
	require.Equal(t, 2, a.offers)
	a.poll()
	require.Equal(t, 2, a.offers)
	a.seq = 0
	a.hello() // as if the answer was lost
	require.Equal(t, 3, a.offers)
}

func TestACapabilityThatIsAddedCountsAtOnce(t *testing.T) {
	t.Parallel()
	w, a := settled(t)
	require.NoError(t, w.SaveConnection(t.Context(), "test", apiv1.Connection{Name: "own", ConnectionOffer: apiv1.ConnectionOffer{
		OwnMetrics: &apiv1.Destination{Endpoint: "https://otlp.example.com/v1/metrics"}, OwnLogs: &apiv1.Destination{Endpoint: "https://otlp.example.com/v1/logs"},
	}}))
	a.full.Capabilities |= uint64(fleet.ReportsOwnMetrics | fleet.ReportsConnectionSettingsStatus)
	require.NotNil(t, a.poll().GetConnectionSettings().GetOwnMetrics())
	a.full.Capabilities |= uint64(fleet.ReportsOwnLogs)
	require.NotNil(t, a.poll().GetConnectionSettings().GetOwnLogs())
}

// What an agent gave up while the server was away is not so any more, though its first message is not the full report.
func TestWhatAFullReportLeavesOutIsGone(t *testing.T) {
	t.Parallel()
	w, a := settled(t)
	a.send(&protobufs.AgentToServer{
		Capabilities: a.full.Capabilities, CustomCapabilities: &protobufs.CustomCapabilities{Capabilities: []string{"com.example"}},
		AvailableComponents: &protobufs.AvailableComponents{Hash: []byte{1}},
	})
	before := a.stored()
	require.Equal(t, []string{"com.example"}, before.CustomCapabilities)
	require.Equal(t, "01", before.AvailableComponentsHash)

	w.restart()
	require.NotZero(t, a.poll().Flags)
	before = a.stored()
	require.Equal(t, []string{"com.example"}, before.CustomCapabilities, "a beat says nothing of it")
	a.full.CustomCapabilities = &protobufs.CustomCapabilities{}
	require.Zero(t, a.hello().Flags)
	after := a.stored()
	require.Empty(t, after.CustomCapabilities)
	require.Empty(t, after.AvailableComponentsHash)
	require.Equal(t, fleet.Healthy, after.State())
}
