package remote

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// base is the configuration file of the agents in these tests: OTLP in, [batch], OTLP out.
const base = `
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "${env:COLLIE_LISTEN}:${env:COLLIE_OTLP_GRPC_PORT}"}
      http: {endpoint: "${env:COLLIE_LISTEN}:${env:COLLIE_OTLP_HTTP_PORT}"}
processors:
  batch: {timeout: 50ms}
exporters:
  otlp_grpc/backend:
    endpoint: ${env:COLLIE_BACKEND_ENDPOINT}
    tls: {insecure: true}
extensions:
  health_check: {endpoint: "${env:COLLIE_LISTEN}:${env:COLLIE_HEALTH_PORT}"}
  opamp:
    server: {ws: {endpoint: "ws://${env:SERVER}/v1/opamp"}}
    storage: {directory: "${env:COLLIE_STATE_DIR}/opamp"}
    remote_config: {soak: 300ms, start_timeout: 3s, crash_loop: {crashes: 3, within: 5m}}
service:
  extensions: [health_check, opamp]
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: "${env:COLLIE_LISTEN}", port: "${env:COLLIE_METRICS_PORT}"}}}}]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc/backend]}
`

// addAttribute and slowOnly are the two configurations that everybody tries first.
const (
	addAttribute = `
processors:
  attributes/test: {actions: [{key: pushed, value: "yes", action: upsert}]}
service:
  pipelines: {traces: {processors: [attributes/test, batch]}}
`
	slowOnly = `
processors:
  tail_sampling: {decision_wait: 200ms, policies: [{name: slow, type: latency, latency: {threshold_ms: 600}}]}
service:
  pipelines: {traces: {processors: [tail_sampling, batch]}}
`
)

// env is a server, a sink and a Collector between them.
type env struct {
	t         testing.TB
	fleet     *fleet
	sink      *traffic.Sink
	collector *harness.Collector
	file      string // the base configuration
}

// options change how a Collector is started.
type options struct {
	base   string // instead of base
	binary string // instead of otelcol-collie
	env    map[string]string
	args   []string
	panics bool // a panic is expected
}

func newEnv(t testing.TB, o options) *env {
	t.Helper()
	e := &env{t: t, fleet: startFleet(t), sink: harness.StartSink(t), file: filepath.Join(t.TempDir(), "base.yaml")}
	if o.base == "" {
		o.base = base
	}
	e.writeBase(o.base)
	environment := map[string]string{"SERVER": e.fleet.address, "COLLIE_BACKEND_ENDPOINT": e.sink.GRPCEndpoint()}
	for k, v := range o.env {
		environment[k] = v
	}
	e.collector = harness.New(t, harness.Options{Args: append([]string{"--config=opamp:" + e.file}, o.args...), Env: environment, Binary: o.binary, MayPanic: o.panics})
	return e
}

func start(t testing.TB, o options) *env {
	t.Helper()
	e := newEnv(t, o)
	e.collector.Start()
	return e
}

func (e *env) writeBase(content string) {
	e.t.Helper()
	require.NoError(e.t, os.WriteFile(e.file, []byte(content), 0o600))
}

// edited is the base configuration with one part replaced.
func edited(t testing.TB, old, replacement string) string {
	t.Helper()
	return replaceOnce(t, base, old, replacement)
}

func replaceOnce(t testing.TB, content, old, replacement string) string {
	t.Helper()
	require.Contains(t, content, old)
	return strings.Replace(content, old, replacement, 1)
}

// run runs the load to its end.
func (e *env) run(cfg traffic.LoadConfig) traffic.LoadSummary {
	e.t.Helper()
	cfg.Endpoints = []string{e.collector.GRPC()}
	sum, err := traffic.RunLoad(e.t.Context(), cfg)
	require.NoError(e.t, err)
	return sum
}

// load runs the load in the background until stop is called.
func (e *env) load(cfg traffic.LoadConfig) (stop func() traffic.LoadSummary) {
	e.t.Helper()
	cfg.Endpoints = []string{e.collector.GRPC()}
	if cfg.Protocol == traffic.ProtocolHTTP {
		cfg.Endpoints = []string{e.collector.HTTP()}
	}
	return harness.Background(e.t, cfg)
}

// awaitAll waits until everything acknowledged has arrived.
func (e *env) awaitAll(sum traffic.LoadSummary) {
	e.t.Helper()
	harness.AwaitAll(e.t, e.sink, sum, 60*time.Second)
}

// startTime tells one process from another with the same PID: field 22 of /proc/PID/stat.
func (e *env) startTime() string {
	e.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.collector.PID()))
	require.NoError(e.t, err)
	_, rest, ok := strings.Cut(string(content), ") ")
	require.True(e.t, ok)
	return strings.Fields(rest)[19]
}

// reloads is how often the whole service was taken down for a new configuration.
func (e *env) reloads() int {
	return strings.Count(e.collector.Log(), "Config updated, restart service")
}

// running is a part of the reported effective configuration.
func (e *env) running(path ...string) any {
	e.t.Helper()
	var doc any
	require.NoError(e.t, yaml.Unmarshal([]byte(e.fleet.effectiveConfig()), &doc))
	for _, key := range path {
		m, ok := doc.(map[string]any)
		if !ok {
			return nil
		}
		doc = m[key]
	}
	return doc
}

// awaitProcessors waits until the agent reports these processors in the traces pipeline.
func (e *env) awaitProcessors(want ...any) {
	e.t.Helper()
	harness.Await(e.t, 20*time.Second, fmt.Sprintf("the processors %v", want), func() (bool, any) {
		got := e.running("service", "pipelines", "traces", "processors")
		return assert.ObjectsAreEqual(want, got), got
	})
}

// labels of every series say whose it is; they only hide the value.
var scope = regexp.MustCompile(`,?otel_scope_[a-z_]+="[^"]*"`)

// metrics are the Collector's own, as Prometheus sees them.
func (e *env) metrics() string {
	e.t.Helper()
	answer, err := http.Get("http://" + e.collector.Metrics() + "/metrics")
	require.NoError(e.t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	require.NoError(e.t, err)
	return strings.ReplaceAll(strings.ReplaceAll(scope.ReplaceAllString(string(body), ""), "{,", "{"), "{}", "")
}
