package opampextension

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.uber.org/zap"
)

// agent keeps one OpAMP connection while the extension runs.
type agent struct {
	cfg    *Config
	set    extension.Settings
	uid    uuid.UUID
	client client.OpAMPClient // nil unless started
}

func newAgent(set extension.Settings, cfg *Config) (*agent, error) {
	if cfg.InstanceUID != "" {
		uid, err := uuid.Parse(cfg.InstanceUID)
		return &agent{cfg: cfg, set: set, uid: uid}, err
	}
	uid, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("generate instance_uid: %w", err)
	}
	return &agent{cfg: cfg, set: set, uid: uid}, nil
}

// Start begins to connect and returns at once: a server that is away never keeps the Collector from starting.
func (a *agent) Start(ctx context.Context, _ component.Host) error {
	settings, err := a.startSettings(ctx)
	if err != nil {
		return err
	}
	c := a.newClient()
	if err := c.SetAgentDescription(a.description()); err != nil {
		return fmt.Errorf("set agent description: %w", err)
	}
	health := &protobufs.ComponentHealth{Healthy: true, StartTimeUnixNano: uint64(time.Now().UnixNano())}
	if err := c.SetHealth(health); err != nil {
		return fmt.Errorf("set health: %w", err)
	}
	caps := protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth
	if err := c.SetCapabilities(&caps); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if err := c.Start(context.WithoutCancel(ctx), settings); err != nil {
		return fmt.Errorf("start OpAMP client for %s: %w", settings.OpAMPServerURL, err)
	}
	a.client = c
	return nil
}

// Shutdown tells the server that the agent leaves, and closes the connection.
func (a *agent) Shutdown(ctx context.Context) error {
	if a.client == nil {
		return nil
	}
	c := a.client
	a.client = nil
	if err := c.Stop(ctx); err != nil {
		return fmt.Errorf("stop OpAMP client: %w", err)
	}
	return nil
}

func (a *agent) newClient() client.OpAMPClient {
	logger := clientLogger{a.set.Logger.Sugar()}
	if a.cfg.Server.WS.HasValue() {
		return client.NewWebSocket(logger)
	}
	c := client.NewHTTP(logger)
	c.SetPollingInterval(a.cfg.Server.HTTP.Get().PollingInterval)
	return c
}

func (a *agent) startSettings(ctx context.Context) (types.StartSettings, error) {
	conn := a.connection()
	tlsConfig, err := conn.tlsConfig(ctx)
	if err != nil {
		return types.StartSettings{}, err
	}
	header := http.Header{}
	for k, v := range conn.Headers {
		header.Set(k, string(v))
	}
	return types.StartSettings{
		OpAMPServerURL: conn.Endpoint,
		Header:         header,
		TLSConfig:      tlsConfig,
		InstanceUid:    types.InstanceUid(a.uid),
		Callbacks:      a.callbacks(),
	}, nil
}

func (a *agent) connection() Connection {
	if ws := a.cfg.Server.WS.Get(); ws != nil {
		return ws.Connection
	}
	return a.cfg.Server.HTTP.Get().Connection
}

// tlsConfig is nil for the plaintext schemes.
func (c Connection) tlsConfig(ctx context.Context) (*tls.Config, error) {
	if strings.HasPrefix(c.Endpoint, "ws:") || strings.HasPrefix(c.Endpoint, "http:") {
		return nil, nil
	}
	cfg, err := c.TLS.LoadTLSConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("server::tls: %w", err)
	}
	return cfg, nil
}

func (a *agent) callbacks() types.Callbacks {
	log := a.set.Logger
	return types.Callbacks{
		OnConnect: func(context.Context) {
			log.Info("Connected to the OpAMP server.", zap.Stringer("instance_uid", a.uid))
		},
		OnConnectFailed: func(_ context.Context, err error) {
			log.Warn("Cannot connect to the OpAMP server, will retry.", zap.Error(err))
		},
		OnError: func(_ context.Context, e *protobufs.ServerErrorResponse) {
			log.Warn("The OpAMP server reports an error.", zap.String("message", e.GetErrorMessage()))
		},
	}
}

func (a *agent) description() *protobufs.AgentDescription {
	host, _ := os.Hostname() // a host without a name is described without it
	return &protobufs.AgentDescription{
		IdentifyingAttributes: []*protobufs.KeyValue{
			attribute("service.name", a.set.BuildInfo.Command),
			attribute("service.version", a.set.BuildInfo.Version),
			attribute("service.instance.id", a.uid.String()),
		},
		NonIdentifyingAttributes: []*protobufs.KeyValue{
			attribute("os.type", runtime.GOOS),
			attribute("host.arch", runtime.GOARCH),
			attribute("host.name", host),
		},
	}
}

func attribute(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

// clientLogger keeps opamp-go's own lines at debug level: the callbacks log each change of state.
type clientLogger struct{ log *zap.SugaredLogger }

func (l clientLogger) Debugf(_ context.Context, format string, v ...any) { l.log.Debugf(format, v...) }

func (l clientLogger) Errorf(_ context.Context, format string, v ...any) { l.log.Debugf(format, v...) }
