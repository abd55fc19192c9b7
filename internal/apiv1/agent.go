package apiv1

import "time"

// Agent is one agent of the inventory.
type Agent struct {
	InstanceUID string `json:"instance_uid"`
	// State is healthy, unhealthy, config_failed, drifted, pending or disconnected.
	State     string `json:"state"`
	Connected bool   `json:"connected"`
	// Transport is ws or http.
	Transport      string    `json:"transport,omitempty"`
	FirstSeen      time.Time `json:"first_seen,omitzero"`
	LastSeen       time.Time `json:"last_seen,omitzero"`
	ConnectedSince time.Time `json:"connected_since,omitzero"`
	// Version is the agent's service.version.
	Version                  string            `json:"version,omitempty"`
	IdentifyingAttributes    map[string]string `json:"identifying_attributes"`
	NonIdentifyingAttributes map[string]string `json:"non_identifying_attributes"`
	// Capabilities are protobuf names without the prefix of the enum, such as AcceptsRemoteConfig.
	Capabilities       []string `json:"capabilities"`
	CustomCapabilities []string `json:"custom_capabilities,omitempty"`
	// Health is absent until it is reported.
	Health       *Health      `json:"health,omitempty"`
	RemoteConfig RemoteConfig `json:"remote_config"`
	// EffectiveConfigHash is the SHA-256, in hexadecimal digits, of what GET /agents/{uid}/effective-config answers.
	EffectiveConfigHash     string             `json:"effective_config_hash,omitempty"`
	AvailableComponentsHash string             `json:"available_components_hash,omitempty"`
	ConnectionSettings      ConnectionSettings `json:"connection_settings"`
	Packages                []PackageStatus    `json:"packages,omitempty"`
	// Duplicates counts other agents that came under the same UID and were given one of their own.
	Duplicates int `json:"duplicates,omitempty"`
}

// Health is a node of the health tree.
type Health struct {
	Healthy    bool              `json:"healthy"`
	Status     string            `json:"status,omitempty"`
	LastError  string            `json:"last_error,omitempty"`
	StartTime  time.Time         `json:"start_time,omitzero"`
	StatusTime time.Time         `json:"status_time,omitzero"`
	Components map[string]Health `json:"components,omitempty"`
}

// RemoteConfig is how far the agent is with what it should run. Hashes are in hexadecimal digits.
type RemoteConfig struct {
	DesiredHash  string    `json:"desired_hash,omitempty"`
	OfferedHash  string    `json:"offered_hash,omitempty"`
	OfferedAt    time.Time `json:"offered_at,omitzero"`
	ReportedHash string    `json:"reported_hash,omitempty"`
	// Status is UNSET, APPLIED, APPLYING or FAILED.
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	// Withheld says why the desired set is not offered, if it is not.
	Withheld string `json:"withheld,omitempty"`
}

// ConnectionSettings is what became of the connection settings offered last.
type ConnectionSettings struct {
	OfferedHash  string `json:"offered_hash,omitempty"`
	ReportedHash string `json:"reported_hash,omitempty"`
	Status       string `json:"status"`
	Error        string `json:"error,omitempty"`
}

// PackageStatus is one package on an agent.
type PackageStatus struct {
	Name           string `json:"name"`
	Version        string `json:"version,omitempty"`
	OfferedVersion string `json:"offered_version,omitempty"`
	// Status is Installed, InstallPending, Installing, InstallFailed or Downloading.
	Status string `json:"status,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Agents is one page of GET /agents.
type Agents struct {
	Agents []Agent `json:"agents"`
	// NextCursor is empty on the last page.
	NextCursor string `json:"next_cursor"`
	// Total counts all agents of the query.
	Total int `json:"total"`
}

// DesiredConfig is what an agent should run, file by file, as GET /agents/{uid}/desired-config answers.
type DesiredConfig struct {
	Hash  string        `json:"hash"`
	Files []DesiredFile `json:"files"`
}

// DesiredFile is one file of an agent's remote configuration.
type DesiredFile struct {
	Name          string `json:"name"`
	Configuration string `json:"configuration"`
	Version       int    `json:"version"`
	Body          string `json:"body"`
}

// Event is an entry of a timeline.
type Event struct {
	ID   int64     `json:"id"`
	Time time.Time `json:"time"`
	// Actor is a token's id, an agent's uid, server, or dev for whoever uses a server without tokens.
	Actor         string `json:"actor,omitempty"`
	Kind          string `json:"kind"`
	Agent         string `json:"agent,omitempty"`
	Configuration string `json:"configuration,omitempty"`
	Version       int    `json:"version,omitempty"`
	Rollout       string `json:"rollout,omitempty"`
	Hash          string `json:"hash,omitempty"`
	Message       string `json:"message,omitempty"`
}

// Events is one page of a timeline, the newest first.
type Events struct {
	Events []Event `json:"events"`
	// NextCursor is empty on the last page.
	NextCursor string `json:"next_cursor"`
}

// Components is what an agent's binary contains, as GET /agents/{uid}/components answers: component types by kind, such as receivers.
type Components struct {
	Hash  string              `json:"hash"`
	Kinds map[string][]string `json:"kinds"`
}

// Series is an agent's own telemetry of the last hour, as GET /agents/{uid}/throughput answers: the points are one Interval
// apart, the oldest first, and a missing one is null.
type Series struct {
	Interval string    `json:"interval"`
	End      time.Time `json:"end"`
	// Accepted, Refused, Sent, Failed and Dropped are items (spans, data points, log records) per second; Queue is items waiting.
	Accepted []*float64 `json:"accepted"`
	Refused  []*float64 `json:"refused"`
	Sent     []*float64 `json:"sent"`
	Failed   []*float64 `json:"failed"`
	Dropped  []*float64 `json:"dropped"`
	Queue    []*float64 `json:"queue"`
}
