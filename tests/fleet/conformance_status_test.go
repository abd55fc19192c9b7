package fleet

import (
	"encoding/hex"
	"net/http"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

// statusDuties are about what agents say of themselves.
var statusDuties = []duty{
	{name: "Status Reporting/every message gets exactly one answer, with its instance_uid", run: func(a *speaker) {
		require.Equal(a, a.uid[:], a.hello().InstanceUid)
		if a.over == overHTTP {
			for range 20 {
				require.Equal(a, a.uid[:], a.beat().InstanceUid)
			}
			return
		}
		for range 20 {
			a.write(append([]byte{0}, a.encoded(&protobufs.AgentToServer{})...))
		}
		for range 20 {
			require.Equal(a, a.uid[:], a.read().InstanceUid)
		}
		a.never("a second answer", func(*protobufs.ServerToAgent) bool { return true })
	}},
	{name: "Retrying Messages/the same message again is answered again", run: func(a *speaker) {
		a.hello()
		for range 3 {
			a.seq = 1
			require.Equal(a, a.uid[:], a.beat().InstanceUid)
		}
	}},
	{name: "ServerToAgent.capabilities/the first answer has them, without undefined bits", run: func(a *speaker) {
		const defined, must = uint64(0x7f), uint64(0x01 | 0x02 | 0x04 | 0x20)
		bits := a.hello().Capabilities
		require.Equal(a, must, bits&must)
		require.Zero(a, bits&^defined)
		require.Zero(a, bits&0x58, "neither packages nor certificates on this server")
		require.Zero(a, a.beat().Capabilities&^defined)
	}},
	{name: "ServerToAgent.capabilities/each agent of a connection and each connection is told", over: overWebSocket, run: func(a *speaker) {
		require.NotZero(a, a.hello().Capabilities)
		b := a.another()
		b.ws = a.ws
		require.NotZero(a, b.hello().Capabilities)
		a.hangUp()
		b.ws = nil
		require.NotZero(a, a.beat().Capabilities)
	}},
	{name: "AgentToServer.capabilities/bits that nobody defined do no harm", run: func(a *speaker) {
		a.full.Capabilities |= 1 << 40
		require.Nil(a, a.hello().ErrorResponse)
		require.NotEmpty(a, a.believed("there", healthy).Capabilities)
	}},
	{name: "Agent Status Compression/an absent field keeps its value", run: func(a *speaker) {
		a.full.Capabilities |= reportsConnectionWord | reportsComponents
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"com.example"}}
		a.full.AvailableComponents = &protobufs.AvailableComponents{Hash: a.uid[:]}
		a.full.ConnectionSettingsStatus = &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: []byte{7}, Status: protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED}
		a.full.RemoteConfigStatus = &protobufs.RemoteConfigStatus{LastRemoteConfigHash: []byte{9}, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED}
		a.full.PackageStatuses = &protobufs.PackageStatuses{Packages: map[string]*protobufs.PackageStatus{"p": {Name: "p", AgentHasVersion: "1"}}}
		a.hello()
		before := a.believed("all of it", healthy)
		require.Equal(a, "09", before.RemoteConfig.ReportedHash)
		require.Equal(a, "07", before.ConnectionSettings.ReportedHash)
		require.Equal(a, hex.EncodeToString(a.uid[:]), before.AvailableComponentsHash)
		require.Len(a, before.Packages, 1)
		require.Equal(a, "receivers: {}\n", a.effective())
		a.beat()
		a.say(&protobufs.AgentToServer{Health: &protobufs.ComponentHealth{Healthy: true, Status: "later"}})
		after := a.believed("a later message", func(v apiv1.Agent) bool { return v.Health.Status == "later" })
		after.Health, after.LastSeen = before.Health, before.LastSeen
		require.Equal(a, before, after)
	}},
	{name: "Agent Status Compression/an empty sub-message clears", run: func(a *speaker) {
		a.full.Capabilities |= reportsConnectionWord
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"com.example"}}
		a.full.ConnectionSettingsStatus = &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: []byte{7}, Status: protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED, ErrorMessage: "no"}
		a.full.RemoteConfigStatus = &protobufs.RemoteConfigStatus{LastRemoteConfigHash: []byte{9}, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, ErrorMessage: "no"}
		a.full.PackageStatuses = &protobufs.PackageStatuses{Packages: map[string]*protobufs.PackageStatus{"p": {Name: "p", AgentHasVersion: "1"}}}
		a.hello()
		a.believed("failed", func(v apiv1.Agent) bool { return v.State == "config_failed" && v.ConnectionSettings.Error == "no" })
		a.say(&protobufs.AgentToServer{
			AgentDescription: &protobufs.AgentDescription{}, RemoteConfigStatus: &protobufs.RemoteConfigStatus{}, PackageStatuses: &protobufs.PackageStatuses{},
			CustomCapabilities: &protobufs.CustomCapabilities{}, ConnectionSettingsStatus: &protobufs.ConnectionSettingsStatus{}, EffectiveConfig: &protobufs.EffectiveConfig{},
		})
		v := a.believed("cleared", healthy)
		require.Equal(a, apiv1.RemoteConfig{Status: "UNSET"}, v.RemoteConfig)
		require.Equal(a, apiv1.ConnectionSettings{Status: "UNSET"}, v.ConnectionSettings)
		require.Empty(a, v.IdentifyingAttributes)
		require.Empty(a, v.NonIdentifyingAttributes)
		require.Empty(a, v.Packages)
		require.Empty(a, v.CustomCapabilities)
		require.Empty(a, a.effective())
	}},
	{name: "ComponentHealth/the tree is kept with its errors and times", run: func(a *speaker) {
		at := time.Now().UTC()
		a.full.Health = &protobufs.ComponentHealth{
			Healthy: false, LastError: "a receiver fails", Status: "StatusRecoverableError", StartTimeUnixNano: uint64(at.UnixNano()), StatusTimeUnixNano: uint64(at.UnixNano()),
			ComponentHealthMap: map[string]*protobufs.ComponentHealth{"pipeline:traces": {
				ComponentHealthMap: map[string]*protobufs.ComponentHealth{"receiver:otlp": {LastError: "address in use"}, "exporter:nop": {Healthy: true}},
			}},
		}
		a.hello()
		v := a.believed("unhealthy", func(v apiv1.Agent) bool { return v.State == "unhealthy" })
		require.Equal(a, &apiv1.Health{
			Status: "StatusRecoverableError", LastError: "a receiver fails", StartTime: at, StatusTime: at,
			Components: map[string]apiv1.Health{"pipeline:traces": {Components: map[string]apiv1.Health{"receiver:otlp": {LastError: "address in use"}, "exporter:nop": {Healthy: true}}}},
		}, v.Health)
		a.say(&protobufs.AgentToServer{Health: &protobufs.ComponentHealth{Healthy: true}})
		require.Empty(a, a.believed("healthy", healthy).Health.Components, "a tree takes the place of the one before")
	}},
	{name: "ComponentHealth/an agent that reports none is not unhealthy", run: func(a *speaker) {
		a.full.Health = nil
		a.full.Capabilities &^= uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth)
		a.hello()
		require.Nil(a, a.believed("healthy", healthy).Health)
	}},
	{name: "EffectiveConfig/several files are documents of one YAML stream", run: func(a *speaker) {
		a.full.EffectiveConfig = files("b.yaml", "exporters: {}", "a.yaml", "receivers: {}\n")
		a.hello()
		a.believed("there", healthy)
		require.Equal(a, "# a.yaml\nreceivers: {}\n---\n# b.yaml\nexporters: {}\n", a.effective())
		a.say(&protobufs.AgentToServer{EffectiveConfig: files("b.yaml", "only: this")})
		a.believed("the other one", func(apiv1.Agent) bool { return a.effective() == "only: this" })
	}},
	{name: "AvailableComponents/an unknown hash is asked for once, also of other agents", run: func(a *speaker) {
		details := func(more bool) *protobufs.AvailableComponents {
			c := &protobufs.AvailableComponents{Hash: a.uid[:]}
			if more {
				c.Components = map[string]*protobufs.ComponentDetails{"receivers": {SubComponentMap: map[string]*protobufs.ComponentDetails{"otlp": {}}}}
			}
			return c
		}
		a.full.Capabilities |= reportsComponents
		a.full.AvailableComponents = details(false)
		require.Equal(a, components, a.hello().Flags)
		require.Zero(a, a.say(&protobufs.AgentToServer{AvailableComponents: details(true)}).Flags)
		require.Zero(a, a.say(&protobufs.AgentToServer{AvailableComponents: details(false)}).Flags)
		b := a.another()
		b.full.Capabilities |= reportsComponents
		b.full.AvailableComponents = details(false)
		require.Zero(b, b.hello().Flags)
		b.believed("its hash", func(v apiv1.Agent) bool { return v.AvailableComponentsHash == hex.EncodeToString(a.uid[:]) })
	}},
	{name: "AvailableComponents/an agent without the capability is not asked", run: func(a *speaker) {
		a.full.AvailableComponents = &protobufs.AvailableComponents{Hash: a.uid[:]}
		require.Zero(a, a.hello().Flags)
	}},
	{name: "AgentToServer.agent_disconnect/it is answered, the agent is gone at once and may come back", run: func(a *speaker) {
		a.hello()
		a.believed("there", healthy)
		require.Equal(a, a.uid[:], a.say(&protobufs.AgentToServer{AgentDisconnect: &protobufs.AgentDisconnect{}}).InstanceUid)
		require.Equal(a, "disconnected", a.believed("gone", func(v apiv1.Agent) bool { return !v.Connected }).State)
		require.Zero(a, a.beat().Flags)
		a.believed("back", healthy)
	}},
	{name: "Closing Connection/a lost connection is an agent that is away", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		a.believed("there", healthy)
		a.hangUp()
		a.believed("away", func(v apiv1.Agent) bool { return v.State == "disconnected" })
	}},
}

// effective is the effective configuration as the server has it.
func (a *speaker) effective() (text string) {
	a.Helper()
	a.ask(http.MethodGet, "/agents/"+a.uid.String()+"/effective-config", nil, &text)
	return text
}
