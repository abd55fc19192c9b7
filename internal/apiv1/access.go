package apiv1

import "time"

// Roles of tokens. Each of viewer, operator and admin may do what those before it may; agent is for the OpAMP endpoint alone.
const (
	RoleAgent    = "agent"
	RoleViewer   = "viewer"
	RoleOperator = "operator"
	RoleAdmin    = "admin"
)

// TokenRequest is the body of POST /tokens.
type TokenRequest struct {
	Role string `json:"role"`
	// Uses is how many agents may enrol with it; absent is without limit. For agent tokens only.
	Uses *int `json:"uses,omitempty"`
	// Expires is how long it is valid from now on ("720h" or "30d"); absent is for ever.
	Expires string `json:"expires,omitempty"`
}

// Token is a credential. Its secret is shown once, when it is made.
type Token struct {
	ID     string `json:"id"`
	Secret string `json:"secret,omitempty"`
	Role   string `json:"role"`
	// Agent is the uid that it was issued for.
	Agent string `json:"agent,omitempty"`
	// Uses left; absent is without limit.
	Uses      *int      `json:"uses,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Tokens answers GET /tokens, the oldest first.
type Tokens struct {
	Tokens []Token `json:"tokens"`
}

// Problem is an error (RFC 9457, application/problem+json).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what is wrong and what to do.
	Detail string `json:"detail,omitempty"`
}

// Connection is a named offer of connection settings to the agents that its selector matches.
type Connection struct {
	Name     string `json:"name"`
	Selector string `json:"selector"`
	// Priority: of two connections that set the same thing, the higher one holds; equal ones go by name.
	Priority int `json:"priority"`
	ConnectionOffer
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// ConnectionOffer is what agents are offered; each part is optional.
type ConnectionOffer struct {
	OpAMP      *OpAMPSettings         `json:"opamp,omitempty"`
	OwnMetrics *Destination           `json:"own_metrics,omitempty"`
	OwnTraces  *Destination           `json:"own_traces,omitempty"`
	OwnLogs    *Destination           `json:"own_logs,omitempty"`
	Other      map[string]Destination `json:"other,omitempty"`
}

// OpAMPSettings is how agents reach an OpAMP server.
type OpAMPSettings struct {
	// Endpoint is empty to stay where they are.
	Endpoint string `json:"endpoint,omitempty"`
	// HeartbeatInterval is a duration; absent is 30s.
	HeartbeatInterval string `json:"heartbeat_interval,omitempty"`
	// Headers replace the agents' own. Answers hold "[redacted]" in place of each value, and what is sent back like that is kept.
	Headers map[string]string `json:"headers,omitempty"`
	// CA is PEM.
	CA string `json:"ca,omitempty"`
}

// Destination is where telemetry goes.
type Destination struct {
	// Endpoint is a URL; for own telemetry the whole one of OTLP/HTTP, as https://otlp.example.com/v1/metrics. "self" in own_metrics
	// is this server.
	Endpoint string            `json:"endpoint"`
	Headers  map[string]string `json:"headers,omitempty"`
	CA       string            `json:"ca,omitempty"`
}

// Connections answers GET /connections.
type Connections struct {
	Connections []Connection `json:"connections"`
}

// Package is an executable that the server can offer: one version, with its platforms.
type Package struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Platforms []string `json:"platforms"`
}

// PackageOffer is a named wish that the agents of a selector run a version.
type PackageOffer struct {
	Name      string    `json:"name"`
	Selector  string    `json:"selector"`
	Priority  int       `json:"priority"`
	Version   string    `json:"version"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Packages answers GET /packages.
type Packages struct {
	Packages []Package      `json:"packages"`
	Offers   []PackageOffer `json:"offers"`
}
