package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/collie-otel/collie/configs"
	"github.com/collie-otel/collie/internal/overlay"
	"github.com/collie-otel/collie/tests/harness"
)

// offeredToken has what a text template or a second resolution would spoil.
const offeredToken = `Bearer "a\b$c${env:PATH}$$d'`

// arrivals counts what came with the offered token, and apart from it what came without.
type arrivals struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func (a *arrivals) add(where, token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token != offeredToken {
		where = "without the token: " + where
	}
	a.n[where]++
}

func (a *arrivals) await(t *testing.T, where string) {
	t.Helper()
	harness.Await(t, 60*time.Second, where, func() (bool, any) {
		a.mu.Lock()
		defer a.mu.Unlock()
		seen := map[string]int{}
		for k, n := range a.n {
			seen[k] = n
		}
		return seen[where] > 0, seen
	})
}

// traceBackend counts requests over OTLP/gRPC.
type traceBackend struct {
	ptraceotlp.UnimplementedGRPCServer
	*arrivals
}

func (b *traceBackend) Export(ctx context.Context, _ ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	b.add("spans", strings.Join(incoming.Get("authorization"), ","))
	return ptraceotlp.NewExportResponse(), nil
}

// mutualTLS is a server's configuration that accepts one client certificate, its own.
func mutualTLS(t *testing.T) (config *tls.Config, offer *protobufs.TLSCertificate) {
	t.Helper()
	certFile, keyFile := harness.SelfSigned(t)
	certificate, err := os.ReadFile(certFile)
	require.NoError(t, err)
	key, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(certificate, key)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certificate))
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		&protobufs.TLSCertificate{Cert: certificate, PrivateKey: key}
}

// What an OpAMP server offers for own telemetry and for an exporter works in a Collector with a shipped configuration: over
// mutual TLS, with headers that have every awkward byte.
func TestOfferedSettingsReachTheirDestinations(t *testing.T) {
	t.Parallel()
	seen := &arrivals{n: map[string]int{}}
	config, certificate := mutualTLS(t)
	own := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen.add(r.URL.Path, r.Header.Get("Authorization"))
	}))
	own.TLS = config.Clone()
	own.StartTLS()
	t.Cleanup(own.Close)
	backend := grpc.NewServer(grpc.Creds(credentials.NewTLS(config.Clone())))
	ptraceotlp.RegisterGRPCServer(backend, &traceBackend{arrivals: seen})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- backend.Serve(listener) }()
	t.Cleanup(func() { backend.Stop(); <-served })

	file := writeOverlaid(t, own.URL, listener.Addr().String(), certificate)
	c := harness.New(t, harness.Options{Configs: []string{file}})
	output, err := c.Validate()
	require.NoError(t, err, output)
	c.Start()
	answer, err := http.Post("http://"+c.HTTP()+"/v1/traces", "application/json", strings.NewReader(
		`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"x"}]}]}]}`))
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
	for _, where := range []string{"spans", "/own/traces", "/own/logs", "/own/metrics"} {
		seen.await(t, where)
	}
	local, err := http.Get("http://" + c.Metrics() + "/metrics")
	require.NoError(t, err, "the local reader stays")
	require.NoError(t, local.Body.Close())
	c.Stop()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for where := range seen.n {
		require.NotContains(t, where, "without the token")
	}
}

// writeOverlaid writes agent.yaml with everything offered, as the Collector would be given it.
func writeOverlaid(t *testing.T, ownURL, backend string, certificate *protobufs.TLSCertificate) string {
	t.Helper()
	text, err := configs.Files.ReadFile("agent.yaml")
	require.NoError(t, err)
	retrieved, err := confmap.NewRetrievedFromYAML(text)
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	base := conf.ToStringMap()

	ca := &protobufs.TLSConnectionSettings{CaPemContents: string(certificate.Cert)}
	token := &protobufs.Headers{Headers: []*protobufs.Header{{Key: "Authorization", Value: offeredToken}}}
	to := func(path string) *protobufs.TelemetryConnectionSettings {
		return &protobufs.TelemetryConnectionSettings{DestinationEndpoint: ownURL + path, Headers: token, Tls: ca, Certificate: certificate}
	}
	files := &overlay.Files{Dir: t.TempDir()}
	telemetry, err := overlay.Telemetry(base, overlay.TelemetryOffers{Metrics: to("/own/metrics"), Traces: to("/own/traces"), Logs: to("/own/logs")}, files)
	require.NoError(t, err)
	for _, f := range files.Wanted() {
		require.NoError(t, os.WriteFile(filepath.Join(files.Dir, f.Name), f.Content, 0o600))
	}
	merged, err := overlay.Merge(overlay.Input{
		Base: base, Telemetry: telemetry,
		Connections: func(merged map[string]any) (map[string]any, error) {
			out, unknown, err := overlay.Connections(merged, map[string]*protobufs.OtherConnectionSettings{
				"otlp/gateway": {DestinationEndpoint: backend, Headers: token, Tls: ca, Certificate: certificate},
			})
			require.Empty(t, unknown)
			return out, err
		},
	})
	require.NoError(t, err)
	out, err := yaml.Marshal(merged)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "merged.yaml")
	require.NoError(t, os.WriteFile(file, out, 0o600))
	return file
}
