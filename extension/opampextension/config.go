package opampextension

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
)

// Config is the configuration of the extension.
type Config struct {
	// Server is the OpAMP server to connect to.
	Server Server `mapstructure:"server"`
	// InstanceUID is the UUID this agent is known by; empty means a new one per start.
	InstanceUID string `mapstructure:"instance_uid"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// Server names the OpAMP server; exactly one transport is set.
type Server struct {
	WS   configoptional.Optional[WebSocket] `mapstructure:"ws"`
	HTTP configoptional.Optional[HTTP]      `mapstructure:"http"`
}

// Connection is what both transports need.
type Connection struct {
	Endpoint string                         `mapstructure:"endpoint"`
	Headers  map[string]configopaque.String `mapstructure:"headers"`
	TLS      configtls.ClientConfig         `mapstructure:"tls"`
}

// WebSocket is the WebSocket transport; its endpoint has the scheme ws or wss.
type WebSocket struct {
	Connection `mapstructure:",squash"`
}

// HTTP is the plain HTTP transport; its endpoint has the scheme http or https.
type HTTP struct {
	Connection `mapstructure:",squash"`
	// PollingInterval is the time between two messages when there is nothing to report.
	PollingInterval time.Duration `mapstructure:"polling_interval"`
}

// Validate reports every mistake at once.
func (c *Config) Validate() error {
	var errs error
	if c.InstanceUID != "" {
		if _, err := uuid.Parse(c.InstanceUID); err != nil {
			errs = errors.Join(errs, fmt.Errorf("instance_uid: %q is not a UUID: %w", c.InstanceUID, err))
		}
	}
	return errors.Join(errs, c.Server.validate())
}

func (s *Server) validate() error {
	switch ws, http := s.WS.Get(), s.HTTP.Get(); {
	case ws != nil && http != nil:
		return errors.New("server: set either ws or http, not both")
	case ws != nil:
		return checkEndpoint("server::ws::endpoint", ws.Endpoint, "ws", "wss")
	case http != nil:
		return errors.Join(
			checkEndpoint("server::http::endpoint", http.Endpoint, "http", "https"),
			checkPolling(http.PollingInterval),
		)
	default:
		return errors.New("server: set ws::endpoint or http::endpoint, e.g. ws://127.0.0.1:4320/v1/opamp")
	}
}

func checkPolling(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("server::http::polling_interval: must be positive, got %v", d)
	}
	return nil
}

func checkEndpoint(path, endpoint, plain, secure string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if (u.Scheme != plain && u.Scheme != secure) || u.Host == "" {
		return fmt.Errorf("%s: want %s://HOST:PORT/v1/opamp or %s://..., got %q", path, plain, secure, endpoint)
	}
	return nil
}
