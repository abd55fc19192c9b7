package opampextension

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configtls"

	"github.com/collie-otel/collie/internal/agent"
)

// with makes the settings of an offer: what it leaves open is as configured. It refuses whatever would protect the
// connection less than the configuration does.
func (c *Config) with(ctx context.Context, host component.Host, offer agent.Offer) (agent.Settings, error) {
	offered := *c
	conn, transport := c.connection()
	configured := conn.Endpoint
	if offer.Endpoint != "" {
		if err := checkURL("destination_endpoint", offer.Endpoint, "ws", "wss", "http", "https"); err != nil {
			return agent.Settings{}, err
		}
		conn.Endpoint = offer.Endpoint
		if transport = agent.HTTP; strings.HasPrefix(offer.Endpoint, "ws") {
			transport = agent.WebSocket
		}
	}
	if offer.Proxy != nil {
		proxy, err := offeredProxy(offer.Proxy)
		if err != nil {
			return agent.Settings{}, err
		}
		offered.Server.Proxy = proxy
	}
	conn.TLS.Insecure = false // means plaintext, and would have configtls ignore the rest
	if err := offerTLS(&conn.TLS, offer.TLS); err != nil {
		return agent.Settings{}, err
	}
	if cert := offer.Certificate; cert != nil {
		conn.TLS.CertFile, conn.TLS.KeyFile, conn.TLS.TPMConfig.Enabled = "", "", false
		conn.TLS.CertPem, conn.TLS.KeyPem = configopaque.String(cert.Cert), configopaque.String(cert.Key)
	}
	// The agent's own credentials may move with the server, but nobody on the way shall see them.
	elsewhere := hostname(conn.Endpoint) != hostname(configured) || offer.Proxy != nil
	if elsewhere && offer.Headers == nil && (len(conn.Headers) > 0 || conn.Auth != component.ID{}) && !offered.trusted(conn) {
		return agent.Settings{}, errors.New("the configured credentials go another way over verified TLS only: offer wss or https, or headers")
	}
	if offer.Headers != nil {
		conn.Headers = opaque(offer.Headers)
		if header(conn.Headers).Get("Authorization") != "" {
			conn.Auth = component.ID{}
		}
	}
	settings, err := offered.settingsOf(ctx, host, conn, transport)
	if err != nil {
		return agent.Settings{}, err
	}
	settings.Key, err = settingsKey(c.Server)
	return settings, err
}

// offerTLS lays TLS settings over the configured ones. Trust in a CA is the session's to decide: it knows who offers it.
func offerTLS(tls *configtls.ClientConfig, offer *agent.OfferedTLS) error {
	if offer == nil {
		return nil
	}
	if offer.SkipVerify && !tls.InsecureSkipVerify {
		return errors.New("tls: insecure_skip_verify is not taken from a server")
	}
	floor := max(tls.MinVersion, "1.2")
	if offer.MinVersion != "" && offer.MinVersion < floor || offer.MaxVersion != "" && offer.MaxVersion < floor {
		return fmt.Errorf("tls: a version below %s is not taken from a server", floor)
	}
	tls.InsecureSkipVerify = offer.SkipVerify
	if offer.CA != "" {
		tls.CAFile, tls.CAPem, tls.IncludeSystemCACertsPool = "", configopaque.String(offer.CA), offer.SystemCAs
	} else if offer.SystemCAs {
		tls.IncludeSystemCACertsPool = true
	}
	if offer.MinVersion != "" {
		tls.MinVersion = offer.MinVersion
	}
	if offer.MaxVersion != "" {
		tls.MaxVersion = offer.MaxVersion
	}
	if len(offer.CipherSuites) > 0 {
		tls.CipherSuites, tls.IncludeInsecureCipherSuites = offer.CipherSuites, false
	}
	if err := tls.Validate(); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return nil
}

// offeredProxy reads the proxy of an offer: a URL, or host:port of an HTTP proxy.
func offeredProxy(offer *agent.OfferedProxy) (Proxy, error) {
	address := offer.URL
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	if err := checkURL("proxy: url", address, "http", "https", "socks5"); err != nil {
		return Proxy{}, err
	}
	return Proxy{URL: address, ConnectHeaders: opaque(offer.Headers)}, nil
}

// trusted says that nobody but the server can speak through a connection.
func (c *Config) trusted(conn Connection) bool {
	u, err := url.Parse(conn.Endpoint)
	if err != nil {
		return false
	}
	if u.Scheme == "wss" || u.Scheme == "https" {
		return !conn.TLS.InsecureSkipVerify
	}
	address := net.ParseIP(u.Hostname())
	return c.Server.Proxy.URL == "" && (u.Hostname() == "localhost" || address != nil && address.IsLoopback())
}

func hostname(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func opaque(values map[string]string) map[string]configopaque.String {
	out := make(map[string]configopaque.String, len(values))
	for k, v := range values {
		out[k] = configopaque.String(v)
	}
	return out
}
