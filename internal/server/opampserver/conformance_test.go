package opampserver

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

const (
	fullState  = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	components = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)
	everything = uint64(0x7f) // all server capabilities
)

// conformance are the duties that hold on both transports, named after the section of the spec.
var conformance = []struct {
	name string
	run  func(g *rig, p peer, uid uuid.UUID)
}{
	{"Status Reporting/every message is answered with its instance_uid", func(g *rig, p peer, uid uuid.UUID) {
		for seq := range uint64(5) {
			require.Equal(g, uid[:], p.say(with(full(uid, seq), func(*protobufs.AgentToServer) {})).InstanceUid)
		}
	}},
	{"Retrying Messages/the same message twice is answered twice", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		require.Equal(g, uid[:], p.say(beat(uid, 1)).InstanceUid)
		require.Equal(g, uid[:], p.say(beat(uid, 1)).InstanceUid)
	}},
	{"ServerToAgent.capabilities/the first answer has them", func(g *rig, p peer, uid uuid.UUID) {
		require.Equal(g, everything, p.say(full(uid, 0)).Capabilities)
	}},
	{"ServerToAgent.capabilities/a change is told with the next message", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		g.SetCapabilities(3, nil)
		require.EqualValues(g, 3, p.say(beat(uid, 1)).Capabilities)
	}},
	{"Agent Status Compression/messages in order are not asked for more", func(g *rig, p peer, uid uuid.UUID) {
		require.Zero(g, p.say(full(uid, 7)).Flags)
		for seq := uint64(8); seq < 12; seq++ {
			require.Zero(g, p.say(beat(uid, seq)).Flags)
		}
		require.Zero(g, g.Metrics().Gaps)
	}},
	{"Agent Status Compression/a gap asks for the full state", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		require.Equal(g, fullState, p.say(beat(uid, 2)).Flags)
		require.True(g, g.fleet.last().Incomplete)
		require.Zero(g, p.say(full(uid, 3)).Flags)
		require.False(g, g.fleet.last().Incomplete)
		require.EqualValues(g, 1, g.Metrics().Gaps)
	}},
	{"Agent Status Compression/an unknown agent's compressed message asks for the full state", func(g *rig, p peer, uid uuid.UUID) {
		require.Equal(g, fullState, p.say(beat(uid, 41)).Flags)
		require.True(g, g.fleet.last().New)
	}},
	{"Agent Status Compression/a restarted agent's full report is no gap", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		p.say(beat(uid, 1))
		require.Zero(g, p.say(full(uid, 0)).Flags)
		require.True(g, g.fleet.last().Restarted)
		require.Zero(g, g.Metrics().Gaps)
		p.say(full(uid, 1))
		require.False(g, g.fleet.last().Restarted)
	}},
	{"Agent Status Compression/the first full report of an unknown agent introduces it", func(g *rig, p peer, uid uuid.UUID) {
		p.say(beat(uid, 41))
		require.False(g, g.fleet.last().Introduced)
		p.say(full(uid, 42))
		require.True(g, g.fleet.last().Introduced)
		p.say(full(uid, 0))
		require.False(g, g.fleet.last().Introduced)
	}},
	{"Agent Status Compression/what a restarted agent does not send is gone", func(g *rig, p peer, uid uuid.UUID) {
		p.say(with(full(uid, 5), func(m *protobufs.AgentToServer) {
			m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"c"}}
		}))
		p.say(full(uid, 0))
		require.Empty(g, g.fleet.last().State.CustomCapabilities)
		require.Equal(g, PartCustomCapabilities, g.fleet.last().Changed)
	}},
	{"Agent Status Compression/an absent field keeps its value", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		p.say(beat(uid, 1))
		r := g.fleet.last()
		require.Zero(g, r.Changed)
		require.Nil(g, r.EffectiveConfig)
		require.Equal(g, "ok", r.State.Health.Status)
		require.Len(g, r.State.EffectiveConfigHash, 32)
	}},
	{"Agent Status Compression/only what differs has changed", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		p.say(with(full(uid, 1), func(m *protobufs.AgentToServer) { m.Health.Healthy = false }))
		require.Equal(g, PartHealth, g.fleet.last().Changed)
	}},
	{"Agent Status Compression/Forget asks for everything", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		g.Forget(uid)
		g.awaitGone(uid, ReasonForgotten)
		require.Equal(g, fullState, p.say(beat(uid, 1)).Flags)
	}},
	{"AgentToServer.capabilities/zero is no value", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		p.say(with(beat(uid, 1), func(m *protobufs.AgentToServer) { m.Capabilities = 0 }))
		require.Equal(g, allAgent, g.fleet.last().State.Capabilities)
	}},
	{"AgentToServer.flags/RequestInstanceUid gets a UUIDv7, the same until it is used", func(g *rig, p peer, uid uuid.UUID) {
		ask := func(seq uint64) uuid.UUID {
			m := p.say(with(full(uid, seq), func(m *protobufs.AgentToServer) { m.Flags = 1 }))
			return uuid.UUID(m.AgentIdentification.NewInstanceUid)
		}
		given := ask(0)
		require.EqualValues(g, 7, given.Version())
		require.Equal(g, given, ask(1))
		require.Equal(g, given[:], p.say(full(given, 2)).InstanceUid)
		require.Equal(g, uid, g.fleet.last().Previous)
		g.awaitGone(uid, ReasonRenamed)
	}},
	{"AgentToServer.agent_disconnect/it is answered, and the agent is gone", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		p.say(with(beat(uid, 1), func(m *protobufs.AgentToServer) { m.AgentDisconnect = &protobufs.AgentDisconnect{} }))
		require.True(g, g.fleet.last().Leaving)
		g.awaitGone(uid, ReasonDisconnect)
		require.ErrorIs(g, g.Push(uid, &Offer{FullState: true}), ErrOffline)
		require.Zero(g, p.say(beat(uid, 2)).Flags)
		require.True(g, g.fleet.last().Reconnected)
	}},
	{"ServerErrorResponse/BAD_REQUEST has nothing beside it", func(g *rig, p peer, uid uuid.UUID) {
		g.fleet.set(func() {
			g.fleet.reply = func(*Report) Reply { return Reply{BadRequest: "no", Offer: &Offer{FullState: true}} }
		})
		want := badRequest(uid[:], "no")
		require.True(g, proto.Equal(want, p.say(full(uid, 0))))
	}},
	{"Throttling/UNAVAILABLE says for how long", func(g *rig, p peer, uid uuid.UUID) {
		g.fleet.set(func() { g.fleet.reply = func(*Report) Reply { return Reply{Unavailable: time.Minute} } })
		m := p.say(full(uid, 0))
		require.EqualValues(g, time.Minute, m.ErrorResponse.GetRetryInfo().RetryAfterNanoseconds)
		require.Zero(g, m.Capabilities)
	}},
	{"Authentication/an agent that is not admitted is refused and not remembered", func(g *rig, p peer, uid uuid.UUID) {
		g.fleet.set(func() { g.fleet.admit = func(uuid.UUID) error { return errors.New("not yours") } })
		require.Equal(g, "not yours", p.say(full(uid, 0)).ErrorResponse.ErrorMessage)
		require.Zero(g, g.Metrics().Agents)
	}},
	{"Configuration/an offer goes along with the answer", func(g *rig, p peer, uid uuid.UUID) {
		g.fleet.set(func() { g.fleet.reply = func(*Report) Reply { return Reply{Offer: &Offer{RemoteConfig: config()}} } })
		require.Equal(g, []byte("hash"), p.say(full(uid, 0)).RemoteConfig.ConfigHash)
	}},
	{"Configuration/an offer is pushed", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		require.NoError(g, g.Push(uid, &Offer{RemoteConfig: config()}))
		require.Equal(g, []byte("hash"), p.next(beat(uid, 1)).RemoteConfig.ConfigHash)
	}},
	{"Configuration/config_hash must be set", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		require.ErrorIs(g, g.Push(uid, &Offer{RemoteConfig: &protobufs.AgentRemoteConfig{}}), ErrInvalidOffer)
	}},
	{"Interoperability of Partial Implementations/a change of the agent's bits counts at once", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		p.say(with(beat(uid, 1), func(m *protobufs.AgentToServer) { m.Capabilities &^= 2 }))
		require.Equal(g, PartCapabilities, g.fleet.last().Changed)
		var missing *CapabilityError
		require.ErrorAs(g, g.Push(uid, &Offer{RemoteConfig: config()}), &missing)
		require.Equal(g, "remote_config", missing.Part)
	}},
	{"Interoperability of Partial Implementations/a reply's part that the agent cannot take comes back", func(g *rig, p peer, uid uuid.UUID) {
		g.fleet.set(func() {
			g.fleet.reply = func(*Report) Reply { return Reply{Offer: &Offer{RemoteConfig: config(), Packages: packages()}} }
		})
		m := p.say(with(full(uid, 0), func(m *protobufs.AgentToServer) { m.Capabilities &^= 8 }))
		require.NotNil(g, m.RemoteConfig)
		require.Nil(g, m.PackagesAvailable)
		require.Len(g, g.fleet.drops(), 1)
	}},
	{"ServerToAgentCommand/a restart is alone", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		require.NoError(g, g.Push(uid, &Offer{Restart: true, RemoteConfig: config()}))
		first := p.next(beat(uid, 1))
		require.NotNil(g, first.RemoteConfig)
		require.Nil(g, first.Command)
		m := p.next(beat(uid, 2))
		require.NotNil(g, m.Command)
		m.Command, m.Capabilities, m.CustomCapabilities = nil, 0, nil
		require.True(g, proto.Equal(&protobufs.ServerToAgent{InstanceUid: uid[:]}, m))
	}},
	{"AvailableComponents/details are asked for, and only the hash is kept", func(g *rig, p peer, uid uuid.UUID) {
		p.say(with(full(uid, 0), func(m *protobufs.AgentToServer) {
			m.AvailableComponents = &protobufs.AvailableComponents{Hash: []byte("h")}
		}))
		require.Equal(g, "h", g.fleet.last().State.ComponentsHash)
		require.NoError(g, g.Push(uid, &Offer{Components: true}))
		require.Equal(g, components, p.next(beat(uid, 1)).Flags)
	}},
	{"Custom Messages/both sides must have the capability", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		offer := &Offer{CustomMessage: &protobufs.CustomMessage{Capability: "io.collie.plan/v1", Type: "plan"}}
		require.Error(g, g.Push(uid, offer))
		m := p.say(with(beat(uid, 1), func(m *protobufs.AgentToServer) {
			m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"io.collie.plan/v1"}}
		}))
		require.Nil(g, m.ErrorResponse)
		require.NoError(g, g.Push(uid, offer))
		require.Equal(g, "plan", p.next(beat(uid, 2)).CustomMessage.Type)
		require.Error(g, g.Push(uid, &Offer{CustomMessage: &protobufs.CustomMessage{Capability: "other"}}))
	}},
	{"Custom Messages/the agent's reach the owner", func(g *rig, p peer, uid uuid.UUID) {
		p.say(with(full(uid, 0), func(m *protobufs.AgentToServer) { m.CustomMessage = &protobufs.CustomMessage{Type: "answer"} }))
		require.Equal(g, "answer", g.fleet.last().CustomMessage.Type)
	}},
	{"Connection Settings/a class that the agent does not take drops the offer", func(g *rig, p peer, uid uuid.UUID) {
		p.say(with(full(uid, 0), func(m *protobufs.AgentToServer) { m.Capabilities &^= 0x40 }))
		c := settings(30)
		require.NoError(g, g.Push(uid, &Offer{ConnectionSettings: c}))
		c.OwnMetrics = &protobufs.TelemetryConnectionSettings{}
		require.ErrorContains(g, g.Push(uid, &Offer{ConnectionSettings: c}), "own_metrics")
	}},
	{"Connection Settings/a destination must be set", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		c := settings(30)
		c.Opamp.DestinationEndpoint = ""
		require.ErrorIs(g, g.Push(uid, &Offer{ConnectionSettings: c}), ErrInvalidOffer)
	}},
	{"Connection Settings Request/a CSR reaches the owner", func(g *rig, p peer, uid uuid.UUID) {
		p.say(with(full(uid, 0), func(m *protobufs.AgentToServer) {
			m.ConnectionSettingsRequest = &protobufs.ConnectionSettingsRequest{Opamp: &protobufs.OpAMPConnectionSettingsRequest{CertificateRequest: &protobufs.CertificateRequest{Csr: []byte("csr")}}}
		}))
		require.Equal(g, []byte("csr"), g.fleet.last().CertificateRequest.Csr)
	}},
	{"Packages/all_packages_hash must be set", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		require.ErrorIs(g, g.Push(uid, &Offer{Packages: &protobufs.PackagesAvailable{}}), ErrInvalidOffer)
		require.NoError(g, g.Push(uid, &Offer{Packages: packages()}))
		require.NotNil(g, p.next(beat(uid, 1)).PackagesAvailable)
	}},
	{"AgentIdentification/the owner gives a new UID", func(g *rig, p peer, uid uuid.UUID) {
		p.say(full(uid, 0))
		given := newUID()
		require.NoError(g, g.Push(uid, &Offer{NewUID: given}))
		require.Equal(g, given[:], p.next(beat(uid, 1)).AgentIdentification.NewInstanceUid)
		p.say(full(given, 2))
		require.Equal(g, uid, g.fleet.last().Previous)
	}},
	{"Message Size Limits/an answer that would be too large is sent without the offer", func(g *rig, p peer, uid uuid.UUID) {
		big := config()
		big.Config = &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: make([]byte, 2<<20)}}}
		g.fleet.set(func() { g.fleet.reply = func(*Report) Reply { return Reply{Offer: &Offer{RemoteConfig: big}} } })
		require.Nil(g, p.say(full(uid, 0)).RemoteConfig)
		require.ErrorIs(g, g.fleet.drops()[0], ErrTooLarge)
	}},
	{"Push/an unknown agent", func(g *rig, _ peer, uid uuid.UUID) {
		require.ErrorIs(g, g.Push(uid, &Offer{FullState: true}), ErrUnknownAgent)
	}},
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, c := range conformance {
		for _, transport := range []Transport{WebSocket, HTTP} {
			t.Run(c.name+"/"+transport.String(), func(t *testing.T) {
				t.Parallel()
				g := newRig(t, Options{MaxMessage: 1 << 20, Capabilities: everything, CustomCapabilities: []string{"io.collie.plan/v1"}})
				var p peer = httpPeer{g}
				if transport == WebSocket {
					p = g.dial()
				}
				c.run(g, p, newUID())
			})
		}
	}
}

func config() *protobufs.AgentRemoteConfig {
	return &protobufs.AgentRemoteConfig{ConfigHash: []byte("hash"), Config: &protobufs.AgentConfigMap{}}
}

func packages() *protobufs.PackagesAvailable {
	return &protobufs.PackagesAvailable{AllPackagesHash: []byte("hash")}
}

func settings(interval uint64) *protobufs.ConnectionSettingsOffers {
	return &protobufs.ConnectionSettingsOffers{Hash: []byte("hash"), Opamp: &protobufs.OpAMPConnectionSettings{DestinationEndpoint: "ws://127.0.0.1:4320/v1/opamp", HeartbeatIntervalSeconds: interval}}
}
