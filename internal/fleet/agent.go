package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Agent is what the control plane knows of one agent. It is identified by its instance_uid, never by its connection.
type Agent struct {
	// UID is the instance_uid as a lower-case UUID of 36 characters.
	UID string `json:"uid"`
	// Identifying and NonIdentifying are the agent's description; values of other types than string as their text.
	Identifying    map[string]string `json:"identifying,omitempty"`
	NonIdentifying map[string]string `json:"non_identifying,omitempty"`
	Capabilities   Capabilities      `json:"capabilities"`
	// CustomCapabilities are reverse domain names with a version.
	CustomCapabilities []string `json:"custom_capabilities,omitempty"`
	// Health is nil until reported: an agent that does not report its health is not an unhealthy one.
	Health       *Health      `json:"health,omitempty"`
	RemoteConfig RemoteConfig `json:"remote_config"`
	// EffectiveConfigHash is ContentHash of the effective configuration; empty if it was not reported.
	EffectiveConfigHash string `json:"effective_config_hash,omitempty"`
	// AvailableComponentsHash is the agent's own name, in hexadecimal digits, for the set of components it contains.
	AvailableComponentsHash string          `json:"available_components_hash,omitempty"`
	Packages                []PackageStatus `json:"packages,omitempty"`
	// PackagesOffered and PackagesReported are hashes of all packages, in hexadecimal digits: what was sent last, and the agent's last word.
	PackagesOffered  string `json:"packages_offered,omitempty"`
	PackagesReported string `json:"packages_reported,omitempty"`
	// Enrolment is the id of the token that it came with first, if its uses are counted.
	Enrolment string `json:"enrolment,omitempty"`
	// Credential is the id of the credential of its own that it has used, and Contender of the one that was made for whoever came in its
	// name with an enrolment token since.
	Credential string `json:"credential,omitempty"`
	Contender  string `json:"contender,omitempty"`
	// Formerly is the UID that its credential is for, if it was given another one since.
	Formerly           string             `json:"formerly,omitempty"`
	ConnectionSettings ConnectionSettings `json:"connection_settings"`
	// Connected says whether a connection is open, or for polling agents whether the last poll is recent.
	Connected bool `json:"connected"`
	// Transport is ws or http.
	Transport string `json:"transport,omitempty"`
	// ConnectedSince is zero while disconnected.
	ConnectedSince time.Time `json:"connected_since,omitzero"`
	FirstSeen      time.Time `json:"first_seen,omitzero"`
	LastSeen       time.Time `json:"last_seen,omitzero"`
	// Duplicates counts connections that claimed this UID while another one held it.
	Duplicates int `json:"duplicates,omitempty"`
}

// Health is a node of the health tree (OpAMP specification, "ComponentHealth").
type Health struct {
	Healthy    bool              `json:"healthy"`
	Status     string            `json:"status,omitempty"`
	LastError  string            `json:"last_error,omitempty"`
	StartTime  time.Time         `json:"start_time,omitzero"`
	StatusTime time.Time         `json:"status_time,omitzero"`
	Components map[string]Health `json:"components,omitempty"`
}

// Status is the status of a remote configuration or of connection settings, by its protobuf name without the prefix.
type Status string

// The statuses. The zero value is Unset too.
const (
	Unset    Status = "UNSET"
	Applied  Status = "APPLIED"
	Applying Status = "APPLYING"
	Failed   Status = "FAILED"
)

// ConnectionSettings is what became of the connection settings offered last.
type ConnectionSettings struct {
	// Basis names the wish behind the offer, without what is made anew for each offer.
	Basis        string `json:"basis,omitempty"`
	OfferedHash  string `json:"offered_hash,omitempty"`
	ReportedHash string `json:"reported_hash,omitempty"`
	Status       Status `json:"status,omitempty"`
	Error        string `json:"error,omitempty"`
}

// PackageStatus is the state of one package on an agent.
type PackageStatus struct {
	Name           string `json:"name"`
	Version        string `json:"version,omitempty"`
	OfferedVersion string `json:"offered_version,omitempty"`
	// Status is the protobuf name without its prefix: Installed, InstallPending, Installing, InstallFailed, Downloading.
	Status string `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

const (
	attributeVersion    = "service.version"
	attributeBridgeMode = "opentelemetry.io/opamp.bridge.mode"
)

// Attributes are what selectors match: both kinds of attributes. A key of both kinds has the identifying value.
func (a *Agent) Attributes() map[string]string {
	all := make(map[string]string, len(a.Identifying)+len(a.NonIdentifying))
	maps.Copy(all, a.NonIdentifying)
	maps.Copy(all, a.Identifying)
	return all
}

// Version is the agent's service.version.
func (a *Agent) Version() string { return a.Identifying[attributeVersion] }

// IsBridge says whether the agent is an OpAMPBridge of the OpenTelemetry operator. It takes files under the names of the
// resources that they are (namespace/name), and deletes resources that it is not sent.
func (a *Agent) IsBridge() bool { return a.NonIdentifying[attributeBridgeMode] != "" }

// Unhealthy says whether the agent reports that it is not healthy.
func (a *Agent) Unhealthy() bool { return a.Health != nil && !a.Health.Healthy }

// Clone returns a copy that shares nothing that can be changed.
func (a *Agent) Clone() Agent {
	c := *a
	c.Identifying, c.NonIdentifying = maps.Clone(a.Identifying), maps.Clone(a.NonIdentifying)
	c.CustomCapabilities, c.Packages = slices.Clone(a.CustomCapabilities), slices.Clone(a.Packages)
	c.RemoteConfig.Refused = slices.Clone(a.RemoteConfig.Refused)
	if a.Health != nil {
		h := a.Health.clone()
		c.Health = &h
	}
	return c
}

func (h *Health) clone() Health {
	c := *h
	c.Components = maps.Clone(h.Components)
	for name, child := range c.Components {
		c.Components[name] = child.clone()
	}
	return c
}

// ValidateUID says whether uid has the form in which agents are kept.
func ValidateUID(uid string) error {
	valid := len(uid) == 36
	for i := 0; valid && i < len(uid); i++ {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			valid = uid[i] == '-'
		} else {
			valid = strings.IndexByte("0123456789abcdef", uid[i]) >= 0
		}
	}
	if !valid {
		return fmt.Errorf("%q is no instance uid: want a lower-case UUID of 36 characters", uid)
	}
	return nil
}
