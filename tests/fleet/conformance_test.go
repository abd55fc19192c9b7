package fleet

import (
	"slices"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/tests/harness"
)

// duty is something that the OpAMP specification asks of a server. Its name is "Section of the specification/what must hold".
type duty struct {
	name string
	// over is the one transport that has this duty; empty is both.
	over string
	run  func(*speaker)
}

// The transports, as the API names them.
const (
	overWebSocket = "ws"
	overHTTP      = "http"
)

// The capabilities that the duties play with; basic is an agent that takes configurations and reports everything about itself.
const (
	reportsStatus         = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus)
	acceptsRemoteConfig   = uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig)
	acceptsPackages       = uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsPackages)
	reportsPackages       = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses)
	acceptsOpAMP          = uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings)
	acceptsOther          = uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsOtherConnectionSettings)
	acceptsRestart        = uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand)
	reportsOwnMetrics     = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnMetrics)
	reportsOwnTraces      = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnTraces)
	reportsOwnLogs        = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnLogs)
	reportsHeartbeat      = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat)
	reportsComponents     = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents)
	reportsConnectionWord = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus)

	basic = reportsStatus | acceptsRemoteConfig | reportsHeartbeat |
		uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig) |
		uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig) |
		uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth)

	fullState  = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	components = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)
	requestUID = uint64(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid)

	// serverMaxMessage is the server's limit in bytes.
	serverMaxMessage = 64 << 20
)

// TestConformance holds the real server to its duties: one server for all, an agent with a UID of its own for each.
func TestConformance(t *testing.T) {
	t.Parallel()
	runDuties(t, harness.StartServer(t, harness.ServerOptions{}), slices.Concat(statusDuties, sequenceDuties, identityDuties,
		remoteConfigDuties, connectionDuties, customDuties, httpDuties, webSocketDuties))
}

func runDuties(t *testing.T, server *harness.Server, duties []duty) {
	t.Helper()
	for _, d := range duties {
		for _, transport := range []string{overWebSocket, overHTTP} {
			if d.over != "" && d.over != transport {
				continue
			}
			t.Run(d.name+"/"+transport, func(t *testing.T) {
				t.Parallel()
				d.run(newSpeaker(t, server, transport))
			})
		}
	}
}
