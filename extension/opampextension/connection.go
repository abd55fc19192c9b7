package opampextension

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/extension/extensionauth"

	"github.com/collie-otel/collie/internal/agent"
)

// connection is the configured one.
func (c *Config) connection() (Connection, agent.Transport) {
	if ws := c.Server.WS.Get(); ws != nil {
		return ws.Connection, agent.WebSocket
	}
	return c.Server.HTTP.Get().Connection, agent.HTTP
}

// interval is the configured time between heartbeats or polls over a transport.
func (c *Config) interval(transport agent.Transport) time.Duration {
	if transport == agent.WebSocket && !c.Capabilities.ReportsHeartbeat {
		return 0
	}
	if h := c.Server.HTTP.Get(); h != nil && h.PollingInterval > 0 {
		return h.PollingInterval
	}
	return defaultInterval
}

// settings makes the session's settings. TLS files that cannot be read and a missing auth extension are errors.
func (c *Config) settings(ctx context.Context, host component.Host) (agent.Settings, error) {
	conn, transport := c.connection()
	settings, err := c.settingsOf(ctx, host, conn, transport)
	settings.With = func(ctx context.Context, offer agent.Offer) (agent.Settings, error) { return c.with(ctx, host, offer) }
	return settings, err
}

func (c *Config) settingsOf(ctx context.Context, host component.Host, conn Connection, transport agent.Transport) (agent.Settings, error) {
	client, err := c.httpClient(ctx, host, conn)
	if err != nil {
		return agent.Settings{}, err
	}
	key, err := settingsKey(c.Server)
	if err != nil {
		return agent.Settings{}, err
	}
	return agent.Settings{
		Transport: transport, Endpoint: conn.Endpoint, Client: client, Interval: c.interval(transport), MaxMessage: c.Server.MaxMessageSize,
		Key: key, Trusted: c.trusted(conn), RequestCertificate: c.Server.RequestCertificate,
	}, nil
}

// settingsKey stands for the server's settings, secrets included, without telling them.
func settingsKey(server Server) (string, error) {
	headers := func(h map[string]configopaque.String) map[string]string {
		out := map[string]string{}
		for k, v := range h {
			out[k] = string(v)
		}
		return out
	}
	pems := func(c configtls.ClientConfig) []string {
		return []string{string(c.CAPem), string(c.CertPem), string(c.KeyPem)}
	}
	shown := map[string]any{"proxy": server.Proxy.URL, "connect": headers(server.Proxy.ConnectHeaders), "max": server.MaxMessageSize}
	if ws := server.WS.Get(); ws != nil {
		shown["ws"], shown["headers"], shown["pems"] = ws, headers(ws.Headers), pems(ws.TLS)
	}
	if h := server.HTTP.Get(); h != nil {
		shown["http"], shown["headers"], shown["pems"] = h, headers(h.Headers), pems(h.TLS)
	}
	data, err := json.Marshal(shown)
	if err != nil {
		return "", fmt.Errorf("compare the server's settings: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// httpClient carries TLS, proxy, headers and authentication for both transports.
func (c *Config) httpClient(ctx context.Context, host component.Host, conn Connection) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// A WebSocket begins with an HTTP/1.1 request.
	transport.ForceAttemptHTTP2 = false
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	if strings.HasPrefix(conn.Endpoint, "wss:") || strings.HasPrefix(conn.Endpoint, "https:") {
		tlsConfig, err := conn.TLS.LoadTLSConfig(ctx)
		if err != nil {
			return nil, fmt.Errorf("server::tls: %w", err)
		}
		transport.TLSClientConfig = tlsConfig
	}
	if c.Server.Proxy.URL != "" {
		proxy, err := url.Parse(c.Server.Proxy.URL)
		if err != nil {
			return nil, fmt.Errorf("server::proxy::url: %w", err)
		}
		transport.Proxy = http.ProxyURL(proxy)
		transport.ProxyConnectHeader = header(c.Server.Proxy.ConnectHeaders)
	}
	var rt http.RoundTripper = withHeaders{transport, header(conn.Headers)}
	if conn.Auth != (component.ID{}) {
		authenticator, ok := host.GetExtensions()[conn.Auth].(extensionauth.HTTPClient)
		if !ok {
			return nil, fmt.Errorf("server::auth: %v is not an extension of service::extensions that authenticates clients", conn.Auth)
		}
		var err error
		if rt, err = authenticator.RoundTripper(rt); err != nil {
			return nil, fmt.Errorf("server::auth: %v: %w", conn.Auth, err)
		}
	}
	return &http.Client{Transport: rt, CheckRedirect: sameHost}, nil
}

// sameHost follows redirects, but never carries headers or credentials to another host.
func sameHost(req *http.Request, via []*http.Request) error {
	const most = 5
	if len(via) >= most {
		return errors.New("too many redirects")
	}
	if req.URL.Host != via[0].URL.Host || via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("the server redirects to %s://%s: configure that endpoint if you trust it", req.URL.Scheme, req.URL.Host)
	}
	return nil
}

// withHeaders adds the configured headers to each request.
type withHeaders struct {
	*http.Transport
	header http.Header
}

func (w withHeaders) RoundTrip(req *http.Request) (*http.Response, error) {
	if len(w.header) > 0 {
		req = req.Clone(req.Context())
		for name, values := range w.header {
			req.Header[name] = values
			if name == "Host" {
				req.Host = values[0]
			}
		}
	}
	return w.Transport.RoundTrip(req)
}

func header(values map[string]configopaque.String) http.Header {
	h := http.Header{}
	for k, v := range values {
		h.Set(k, string(v))
	}
	return h
}
