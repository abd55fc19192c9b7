package fleet

import "math/bits"

// Capabilities are the bits of AgentToServer.capabilities (OpAMP specification, "AgentCapabilities").
type Capabilities uint64

// The capabilities, one bit each.
const (
	ReportsStatus Capabilities = 1 << iota
	AcceptsRemoteConfig
	ReportsEffectiveConfig
	AcceptsPackages
	ReportsPackageStatuses
	ReportsOwnTraces
	ReportsOwnMetrics
	ReportsOwnLogs
	AcceptsOpAMPConnectionSettings
	AcceptsOtherConnectionSettings
	AcceptsRestartCommand
	ReportsHealth
	ReportsRemoteConfig
	ReportsHeartbeat
	ReportsAvailableComponents
	ReportsConnectionSettingsStatus
)

// capabilityNames are the protobuf names without the prefix of the enum, in the order of the bits.
var capabilityNames = [...]string{
	"ReportsStatus", "AcceptsRemoteConfig", "ReportsEffectiveConfig", "AcceptsPackages", "ReportsPackageStatuses",
	"ReportsOwnTraces", "ReportsOwnMetrics", "ReportsOwnLogs", "AcceptsOpAMPConnectionSettings",
	"AcceptsOtherConnectionSettings", "AcceptsRestartCommand", "ReportsHealth", "ReportsRemoteConfig", "ReportsHeartbeat",
	"ReportsAvailableComponents", "ReportsConnectionSettingsStatus",
}

// Has says whether all bits of other are set.
func (c Capabilities) Has(other Capabilities) bool { return c&other == other }

// Names lists the capabilities by name, in the order of the bits. Bits that the specification does not define are left out.
func (c Capabilities) Names() []string {
	names := make([]string, 0, bits.OnesCount64(uint64(c)))
	for i, name := range capabilityNames {
		if c.Has(1 << i) {
			names = append(names, name)
		}
	}
	return names
}
