package opampextension

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/extension/extensionauth"

	"github.com/collie-otel/collie/internal/agent"
)

// fakeHost has extensions.
type fakeHost map[component.ID]component.Component

func (h fakeHost) GetExtensions() map[component.ID]component.Component { return h }

// fakeAuth is an extension that authenticates as roundTripper says.
type fakeAuth struct {
	component.StartFunc
	component.ShutdownFunc
	extensionauth.ClientRoundTripperFunc
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func httpConfig(conn Connection) *Config {
	cfg := createDefaultConfig().(*Config)
	cfg.Server.HTTP = configoptional.Some(HTTP{Connection: conn})
	return cfg
}

// client makes the client of a configuration; its connections end with the test.
func client(t *testing.T, cfg *Config, host component.Host) *http.Client {
	t.Helper()
	s, err := cfg.settings(t.Context(), host)
	require.NoError(t, err)
	t.Cleanup(s.Client.CloseIdleConnections)
	return s.Client
}

func get(t *testing.T, c *http.Client, address string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	require.NoError(t, err)
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, nil
}

// serve answers each request with 200 after handle has seen it.
func serve(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s
}

func TestSettings(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, "server: {http: {endpoint: 'http://127.0.0.1/v1/opamp', polling_interval: 0s}, max_message_size: 4096}")
	s, err := cfg.settings(t.Context(), componenttest.NewNopHost())
	require.NoError(t, err)
	require.Equal(t, agent.HTTP, s.Transport)
	require.Equal(t, "http://127.0.0.1/v1/opamp", s.Endpoint)
	require.Equal(t, defaultInterval, s.Interval)
	require.Equal(t, int64(4096), s.MaxMessage)
	require.NotEmpty(t, s.Key)
}

func TestClientHeaders(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	c := client(t, httpConfig(Connection{
		Endpoint: s.URL,
		Headers:  map[string]configopaque.String{"x-tenant": "one", "Authorization": "Bearer abc", "Host": "opamp.example"},
	}), componenttest.NewNopHost())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	resp, err := c.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Empty(t, req.Header, "the caller's request is left alone")
	got := <-seen
	require.Equal(t, "one", got.Header.Get("X-Tenant"))
	require.Equal(t, "Bearer abc", got.Header.Get("Authorization"))
	require.Equal(t, "opamp.example", got.Host)
	require.Equal(t, "HTTP/1.1", got.Proto)
}

func TestClientTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true // the client must not take it: a WebSocket needs HTTP/1.1
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, ca, 0o600))
	tests := []struct {
		name    string
		set     func(*Connection)
		trusted bool
	}{
		{"CA file", func(c *Connection) { c.TLS.CAFile = file }, true},
		{"CA in the configuration", func(c *Connection) { c.TLS.CAPem = configopaque.String(ca) }, true},
		{"not verified", func(c *Connection) { c.TLS.InsecureSkipVerify = true }, true},
		{"unknown CA", func(*Connection) {}, false},
		{"insecure does not weaken https", func(c *Connection) { c.TLS.Insecure = true }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := Connection{Endpoint: s.URL}
			tt.set(&conn)
			status, err := get(t, client(t, httpConfig(conn), componenttest.NewNopHost()), s.URL)
			if !tt.trusted {
				require.ErrorContains(t, err, "certificate")
				return
			}
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status)
		})
	}
}

func TestClientTLSFileMissing(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"https://127.0.0.1", "wss://127.0.0.1"} {
		conn := Connection{Endpoint: address}
		conn.TLS.CAFile = filepath.Join(t.TempDir(), "missing.pem")
		_, err := httpConfig(conn).settings(t.Context(), componenttest.NewNopHost())
		require.ErrorContains(t, err, "server::tls: ")
		require.ErrorContains(t, err, "missing.pem")
	}
}

// proxyServer is an HTTP proxy that forwards CONNECT to target, whatever is asked for.
func proxyServer(t *testing.T, target string, connects chan<- *http.Request) *httptest.Server {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		connects <- r
		if r.Method != http.MethodConnect {
			return
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = out.Close() }()
		in, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = in.Close() }()
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(out, buffered)
			_ = out.Close()
		}()
		_, _ = io.Copy(in, out)
		_ = in.Close()
		<-done
	})
}

func TestClientProxy(t *testing.T) {
	t.Parallel()
	t.Run("https", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(s.Close)
		seen := make(chan *http.Request, 1)
		proxy := proxyServer(t, s.Listener.Addr().String(), seen)
		conn := Connection{Endpoint: "https://opamp.invalid", Headers: map[string]configopaque.String{"X-Tenant": "one"}}
		conn.TLS.InsecureSkipVerify = true
		cfg := httpConfig(conn)
		cfg.Server.Proxy = Proxy{URL: proxy.URL, ConnectHeaders: map[string]configopaque.String{"Proxy-Authorization": "Basic abc"}}
		status, err := get(t, client(t, cfg, componenttest.NewNopHost()), conn.Endpoint)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		connect := <-seen
		require.Equal(t, http.MethodConnect, connect.Method)
		require.Equal(t, "opamp.invalid:443", connect.Host)
		require.Equal(t, "Basic abc", connect.Header.Get("Proxy-Authorization"))
		require.Empty(t, connect.Header.Get("X-Tenant"), "the server's headers are not the proxy's")
	})
	t.Run("http", func(t *testing.T) {
		t.Parallel()
		seen := make(chan *http.Request, 1)
		proxy := proxyServer(t, "", seen)
		cfg := httpConfig(Connection{Endpoint: "http://opamp.invalid"})
		cfg.Server.Proxy.URL = proxy.URL
		_, err := get(t, client(t, cfg, componenttest.NewNopHost()), "http://opamp.invalid/v1/opamp")
		require.NoError(t, err)
		require.Equal(t, "http://opamp.invalid/v1/opamp", (<-seen).URL.String())
	})
}

func TestClientRedirects(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	other := serve(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	var final atomic.Pointer[http.Request]
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/final", http.StatusTemporaryRedirect)
		case "/other":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		case "/final":
			final.Store(r)
		}
	})
	c := client(t, httpConfig(Connection{
		Endpoint: s.URL, Headers: map[string]configopaque.String{"Authorization": "Bearer abc"},
	}), componenttest.NewNopHost())

	status, err := get(t, c, s.URL+"/same")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "Bearer abc", final.Load().Header.Get("Authorization"))

	_, err = get(t, c, s.URL+"/other")
	require.ErrorContains(t, err, "the server redirects to "+other.URL)
	require.Zero(t, reached.Load(), "the other host sees neither the request nor its credentials")

	_, err = get(t, c, s.URL+"/loop")
	require.ErrorContains(t, err, "too many redirects")
}

func TestSameHost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, from, to string
		ok             bool
	}{
		{"another path", "https://a/x", "https://a/y", true},
		{"to TLS", "http://a", "https://a", true},
		{"away from TLS", "https://a", "http://a", false},
		{"another port", "http://a:1", "http://a:2", false},
		{"a subdomain", "https://a", "https://b.a", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			request := func(text string) *http.Request {
				u, err := url.Parse(text)
				require.NoError(t, err)
				return &http.Request{URL: u}
			}
			err := sameHost(request(tt.to), []*http.Request{request(tt.from)})
			require.Equal(t, tt.ok, err == nil, "%v", err)
		})
	}
}

func TestClientAuth(t *testing.T) {
	t.Parallel()
	id := component.MustNewIDWithName("bearertokenauth", "opamp")
	seen := make(chan http.Header, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	cfg := httpConfig(Connection{Endpoint: s.URL, Auth: id, Headers: map[string]configopaque.String{"X-Tenant": "one"}})

	good := fakeAuth{ClientRoundTripperFunc: func(base http.RoundTripper) (http.RoundTripper, error) {
		return roundTripperFunc(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer of the extension")
			return base.RoundTrip(r)
		}), nil
	}}
	var transport http.RoundTripper
	inner := good.ClientRoundTripperFunc
	good.ClientRoundTripperFunc = func(base http.RoundTripper) (http.RoundTripper, error) {
		transport = base
		return inner(base)
	}
	c := client(t, cfg, fakeHost{id: good})
	t.Cleanup((&http.Client{Transport: transport}).CloseIdleConnections) // the extension's own hides them
	_, err := get(t, c, s.URL)
	require.NoError(t, err)
	header := <-seen
	require.Equal(t, "Bearer of the extension", header.Get("Authorization"))
	require.Equal(t, "one", header.Get("X-Tenant"))

	errAuth := errors.New("no token")
	bad := fakeAuth{ClientRoundTripperFunc: func(http.RoundTripper) (http.RoundTripper, error) { return nil, errAuth }}
	for name, host := range map[string]fakeHost{"missing": {}, "no authenticator": {id: struct{ component.Component }{}}, "failing": {id: bad}} {
		_, err := cfg.settings(context.Background(), host)
		require.ErrorContains(t, err, "server::auth: bearertokenauth/opamp", name)
		require.Equal(t, name == "failing", errors.Is(err, errAuth), name)
	}
}

func TestDependencies(t *testing.T) {
	t.Parallel()
	id := component.MustNewID("basicauth")
	require.Equal(t, []component.ID{id}, (&opampExtension{cfg: httpConfig(Connection{Auth: id})}).Dependencies())
	require.Empty(t, (&opampExtension{cfg: httpConfig(Connection{})}).Dependencies())
}

// A reload keeps the connection if, and only if, the key is the same.
func TestSettingsKey(t *testing.T) {
	t.Parallel()
	base := func() *Config {
		cfg := httpConfig(Connection{Endpoint: "http://a", Headers: map[string]configopaque.String{"A": "hunter2", "B": "b", "C": "c"}})
		cfg.Server.Proxy = Proxy{URL: "http://proxy", ConnectHeaders: map[string]configopaque.String{"P": "hunter2"}}
		return cfg
	}
	key := func(cfg *Config) string {
		k, err := settingsKey(cfg.Server)
		require.NoError(t, err)
		require.False(t, strings.Contains(k, "hunter"))
		return k
	}
	seen := map[string]string{key(base()): "base"}
	for range 10 {
		require.Contains(t, seen, key(base()), "the same settings have the same key")
	}
	changes := map[string]func(*Config){
		"endpoint":         func(c *Config) { c.Server.HTTP.Get().Endpoint = "http://b" },
		"secret header":    func(c *Config) { c.Server.HTTP.Get().Headers["A"] = "hunter3" },
		"fewer headers":    func(c *Config) { delete(c.Server.HTTP.Get().Headers, "B") },
		"proxy":            func(c *Config) { c.Server.Proxy.URL = "http://proxy:1" },
		"connect header":   func(c *Config) { c.Server.Proxy.ConnectHeaders["P"] = "hunter3" },
		"polling interval": func(c *Config) { c.Server.HTTP.Get().PollingInterval++ },
		"message size":     func(c *Config) { c.Server.MaxMessageSize++ },
		"auth":             func(c *Config) { c.Server.HTTP.Get().Auth = component.MustNewID("basicauth") },
		"CA file":          func(c *Config) { c.Server.HTTP.Get().TLS.CAFile = "ca.pem" },
		"CA":               func(c *Config) { c.Server.HTTP.Get().TLS.CAPem = "one" },
		"another CA":       func(c *Config) { c.Server.HTTP.Get().TLS.CAPem = "two" },
		"key":              func(c *Config) { c.Server.HTTP.Get().TLS.KeyPem = "one" },
		"another key":      func(c *Config) { c.Server.HTTP.Get().TLS.KeyPem = "two" },
		"transport": func(c *Config) {
			c.Server.WS = configoptional.Some(WebSocket{Connection: c.Server.HTTP.Get().Connection})
			c.Server.HTTP = configoptional.None[HTTP]()
		},
	}
	for name, change := range changes {
		cfg := base()
		change(cfg)
		k := key(cfg)
		require.NotContains(t, seen, k, "%s has the key of %s", name, seen[k])
		seen[k] = name
	}
}
