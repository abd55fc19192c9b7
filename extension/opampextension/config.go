package opampextension

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"

	"github.com/collie-otel/collie/internal/remoteconfig"
)

// Config is the configuration of the extension: all keys of the upstream extension with the same meaning, and more.
type Config struct {
	// Server is the OpAMP server to connect to.
	Server Server `mapstructure:"server"`
	// InstanceUID is the UUID, or the ULID, this agent is known by; empty means that one is generated once and kept in Storage.
	InstanceUID string `mapstructure:"instance_uid"`
	// Capabilities says what is reported and accepted.
	Capabilities Capabilities `mapstructure:"capabilities"`
	// AgentDescription adds to what the agent says of itself.
	AgentDescription AgentDescription `mapstructure:"agent_description"`
	// Storage is where the agent keeps its identity.
	Storage Storage `mapstructure:"storage"`
	// RemoteConfig is how configurations of the server are applied; it needs --config=opamp:FILE.
	RemoteConfig remoteconfig.Settings `mapstructure:"remote_config"`
	// Packages is how executables of the server are accepted.
	Packages Packages `mapstructure:"packages"`
	// HealthGracePeriod is how long a component may have a recoverable error before the whole agent counts as unhealthy.
	HealthGracePeriod time.Duration `mapstructure:"health_grace_period"`
	// PPID is a process that the Collector must not outlive; 0 is none.
	PPID int32 `mapstructure:"ppid"`
	// PPIDPollInterval is how often it is looked for.
	PPIDPollInterval time.Duration `mapstructure:"ppid_poll_interval"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// Server names the OpAMP server; exactly one transport is set.
type Server struct {
	WS   configoptional.Optional[WebSocket] `mapstructure:"ws"`
	HTTP configoptional.Optional[HTTP]      `mapstructure:"http"`
	// Proxy is used for both transports; without it the environment's HTTPS_PROXY and NO_PROXY hold.
	Proxy Proxy `mapstructure:"proxy"`
	// MaxMessageSize bounds a message of the server in bytes, after decompression.
	MaxMessageSize int64 `mapstructure:"max_message_size"`
	// RequestCertificate has the server asked for a client certificate, where it issues them.
	RequestCertificate bool `mapstructure:"request_certificate"`
}

// Connection is what both transports need.
type Connection struct {
	Endpoint string                         `mapstructure:"endpoint"`
	Headers  map[string]configopaque.String `mapstructure:"headers"`
	TLS      configtls.ClientConfig         `mapstructure:"tls"`
	// Auth is the id of an extension that authenticates requests, such as bearertokenauth.
	Auth component.ID `mapstructure:"auth"`
}

// WebSocket is the WebSocket transport; its endpoint has the scheme ws or wss.
type WebSocket struct {
	Connection `mapstructure:",squash"`
}

// HTTP is the plain HTTP transport; its endpoint has the scheme http or https.
type HTTP struct {
	Connection `mapstructure:",squash"`
	// PollingInterval is the time between two messages when there is nothing to report; 0 means 30 s.
	PollingInterval time.Duration `mapstructure:"polling_interval"`
}

// Proxy is an HTTP, HTTPS or SOCKS5 proxy.
type Proxy struct {
	URL string `mapstructure:"url"`
	// ConnectHeaders are sent with CONNECT.
	ConnectHeaders map[string]configopaque.String `mapstructure:"connect_headers"`
}

// Capabilities are switches, one for each capability of the protocol that the extension has.
type Capabilities struct {
	ReportsEffectiveConfig          bool `mapstructure:"reports_effective_config"`
	ReportsRawConfig                bool `mapstructure:"reports_raw_config"`
	ReportsHealth                   bool `mapstructure:"reports_health"`
	ReportsHeartbeat                bool `mapstructure:"reports_heartbeat"`
	ReportsAvailableComponents      bool `mapstructure:"reports_available_components"`
	AcceptsRestartCommand           bool `mapstructure:"accepts_restart_command"`
	AcceptsOpAMPConnectionSettings  bool `mapstructure:"accepts_opamp_connection_settings"`
	ReportsConnectionSettingsStatus bool `mapstructure:"reports_connection_settings_status"`
	AcceptsRemoteConfig             bool `mapstructure:"accepts_remote_config"`
	ReportsRemoteConfig             bool `mapstructure:"reports_remote_config"`
	ReportsOwnMetrics               bool `mapstructure:"reports_own_metrics"`
	ReportsOwnTraces                bool `mapstructure:"reports_own_traces"`
	ReportsOwnLogs                  bool `mapstructure:"reports_own_logs"`
	AcceptsOtherConnectionSettings  bool `mapstructure:"accepts_other_connection_settings"`
	AcceptsPackages                 bool `mapstructure:"accepts_packages"`
	ReportsPackageStatuses          bool `mapstructure:"reports_package_statuses"`
}

// AgentDescription holds attributes beside, or in place of, those that are found out.
type AgentDescription struct {
	IdentifyingAttributes     map[string]string `mapstructure:"identifying_attributes"`
	NonIdentifyingAttributes  map[string]string `mapstructure:"non_identifying_attributes"`
	IncludeResourceAttributes bool              `mapstructure:"include_resource_attributes"`
}

// Storage is a folder of the agent's own.
type Storage struct {
	Directory string `mapstructure:"directory"`
}

// Validate reports every mistake at once.
func (c *Config) Validate() error {
	var errs error
	if _, err := parseUID(c.InstanceUID); err != nil {
		errs = errors.Join(errs, fmt.Errorf("instance_uid: %w", err))
	}
	if c.PPID < 0 {
		errs = errors.Join(errs, fmt.Errorf("ppid: must not be negative, got %d", c.PPID))
	}
	if c.PPIDPollInterval <= 0 {
		errs = errors.Join(errs, fmt.Errorf("ppid_poll_interval: must be positive, got %v", c.PPIDPollInterval))
	}
	if c.HealthGracePeriod < 0 {
		errs = errors.Join(errs, fmt.Errorf("health_grace_period: must not be negative, got %v", c.HealthGracePeriod))
	}
	return errors.Join(errs, c.validatePackages(), c.Server.validate())
}

func (s *Server) validate() error {
	var errs error
	if s.MaxMessageSize <= 0 {
		errs = errors.Join(errs, fmt.Errorf("server::max_message_size: must be positive, got %d", s.MaxMessageSize))
	}
	if s.Proxy.URL != "" {
		errs = errors.Join(errs, checkURL("server::proxy::url", s.Proxy.URL, "http", "https", "socks5"))
	}
	switch ws, http := s.WS.Get(), s.HTTP.Get(); {
	case ws != nil && http != nil:
		return errors.Join(errs, errors.New("server: set either ws or http, not both"))
	case ws != nil:
		return errors.Join(errs, checkURL("server::ws::endpoint", ws.Endpoint, "ws", "wss"))
	case http != nil:
		if http.PollingInterval < 0 {
			errs = errors.Join(errs, fmt.Errorf("server::http::polling_interval: must not be negative, got %v", http.PollingInterval))
		}
		return errors.Join(errs, checkURL("server::http::endpoint", http.Endpoint, "http", "https"))
	default:
		return errors.Join(errs, errors.New("server: set ws::endpoint or http::endpoint, e.g. ws://127.0.0.1:4320/v1/opamp"))
	}
}

func checkURL(path, text string, schemes ...string) error {
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%s: not a URL", path) // the cause would quote it, and with it a password
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme && u.Host != "" {
			return nil
		}
	}
	return fmt.Errorf("%s: want a URL with one of the schemes %v and a host, got %q", path, schemes, u.Redacted())
}

// parseUID reads a UUID or, as upstream does, a ULID, which has the same 16 bytes; the empty string is the zero UUID.
func parseUID(text string) (uuid.UUID, error) {
	if text == "" {
		return uuid.Nil, nil
	}
	if uid, ok := parseULID(text); ok {
		return uid, nil
	}
	uid, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil, fmt.Errorf("%q is neither a UUID nor a ULID", text)
	}
	return uid, nil
}
