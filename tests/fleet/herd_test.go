package fleet

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// base is the configuration file of the Collectors in a herd: OTLP in, [batch], OTLP out.
const base = `
receivers:
  otlp: {protocols: {grpc: {endpoint: "${env:COLLIE_LISTEN}:${env:COLLIE_OTLP_GRPC_PORT}"}}}
processors:
  batch: {timeout: 50ms}
exporters:
  otlp_grpc: {endpoint: "${env:COLLIE_BACKEND_ENDPOINT}", tls: {insecure: true}}
extensions:
  health_check: {endpoint: "${env:COLLIE_LISTEN}:${env:COLLIE_HEALTH_PORT}"}
  opamp:
    server:
      ws:
        endpoint: ${env:SERVER}
        headers: {Authorization: "Bearer ${env:TOKEN:-none}"}
        tls: {ca_file: "${env:CA_FILE:-}"}
      request_certificate: ${env:REQUEST_CERTIFICATE:-false}
    storage: {directory: "${env:COLLIE_STATE_DIR}/opamp"}
    agent_description: {non_identifying_attributes: {group: "${env:GROUP}", host.name: "${env:NAME}"}}
    remote_config: {soak: 300ms, start_timeout: 5s}
    capabilities: {accepts_packages: "${env:PACKAGES:-false}", reports_package_statuses: "${env:PACKAGES:-false}"}
    packages: {public_keys: "${env:PACKAGES_KEYS:-[]}"}
service:
  extensions: [health_check, opamp]
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}
`

const (
	addAttribute = `
processors:
  attributes/test: {actions: [{key: pushed, value: "yes", action: upsert}]}
service:
  pipelines: {traces: {processors: [attributes/test, batch]}}
`
	// unrulyAndFine needs a component that otelcol-collie does not have.
	unrulyAndFine = `
processors:
  unruly: {}
service:
  pipelines: {traces: {processors: [unruly, batch]}}
`
	// sickLater starts, is healthy long enough for the agent, and then is not.
	sickLater = `
processors:
  unruly: {on: ready, do: permanent, after: 2s}
service:
  pipelines: {traces: {processors: [unruly, batch]}}
`
)

// herd is a server, a sink, and Collectors between them.
type herd struct {
	t          *testing.T
	server     *harness.Server
	config     string // of the Collectors
	sink       *traffic.Sink
	collectors map[string]*harness.Collector // by host.name
}

// newHerd starts a server without tokens, and the named Collectors.
func newHerd(t *testing.T, names ...string) *herd {
	t.Helper()
	h := emptyHerd(t, harness.ServerOptions{})
	for _, name := range names {
		h.start(name, nil)
	}
	harness.Await(t, limit, "all agents healthy", func() (bool, any) {
		page := h.server.Agents("state", "healthy")
		return page.Total == len(names), page.Total
	})
	return h
}

func emptyHerd(t *testing.T, o harness.ServerOptions) *herd {
	t.Helper()
	h := &herd{t: t, server: harness.StartServer(t, o), sink: harness.StartSink(t), collectors: map[string]*harness.Collector{}}
	h.config = filepath.Join(t.TempDir(), "base.yaml")
	require.NoError(t, os.WriteFile(h.config, []byte(base), 0o600))
	return h
}

// start starts a Collector. Those whose name begins with unruly- have the components that misbehave. The rest of the name up to the last
// dash is the group.
func (h *herd) start(name string, env map[string]string) {
	h.t.Helper()
	binary := harness.Binary(h.t, "otelcol-collie")
	if strings.HasPrefix(name, "unruly-") {
		binary = harness.Binary(h.t, "test/otelcol-unruly")
	}
	h.run(name, binary, env)
}

func (h *herd) run(name, binary string, env map[string]string) {
	h.t.Helper()
	all := map[string]string{
		"SERVER": h.server.WebSocket(), "COLLIE_BACKEND_ENDPOINT": h.sink.GRPCEndpoint(), "NAME": name, "GROUP": name[:strings.LastIndex(name, "-")],
		"CA_FILE": h.server.CAFile,
	}
	maps.Copy(all, env)
	h.collectors[name] = harness.Start(h.t, harness.Options{Name: name, Binary: binary, Args: []string{"--config=opamp:" + h.config}, Env: all})
}

// agent is what the server knows of a Collector.
func (h *herd) agent(name string) apiv1.Agent {
	h.t.Helper()
	page := h.server.Agents("selector", "host.name="+name)
	require.Equal(h.t, 1, page.Total, name)
	return page.Agents[0]
}

// reloads is how often a Collector was taken down for a new configuration.
func (h *herd) reloads(name string) int {
	return strings.Count(h.collectors[name].Log(), "Config updated, restart service")
}

// collie runs a command against the server and returns its exit code and all it printed.
func (h *herd) collie(args ...string) (code int, printed string) {
	h.t.Helper()
	cmd := exec.Command(harness.Binary(h.t, "collie"), args...)
	cmd.Env = []string{"COLLIE_SERVER=" + h.server.URL(), "COLLIE_TOKEN=" + h.server.AdminToken(), "HOME=" + h.t.TempDir()}
	if h.server.CAFile != "" {
		cmd.Args = append(cmd.Args, "--ca-file", h.server.CAFile)
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil {
		require.ErrorAs(h.t, err, &exit, "%s", out)
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// body writes a configuration to a file.
func (h *herd) body(text string) string {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "remote.yaml")
	require.NoError(h.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// timeline is the kinds of an agent's events with their messages, the oldest first.
func (h *herd) timeline(name string) []string {
	h.t.Helper()
	var events apiv1.Events
	h.server.Must(http.MethodGet, "/agents/"+h.agent(name).InstanceUID+"/events?limit=1000", nil, &events)
	var lines []string
	for i := len(events.Events) - 1; i >= 0; i-- {
		e := events.Events[i]
		lines = append(lines, fmt.Sprintf("%s %s", e.Kind, e.Message))
	}
	return lines
}

// load sends to all Collectors until stop is called, which requires that every request was accepted and every span arrived.
func (h *herd) load() (stop func()) {
	h.t.Helper()
	cfg := traffic.LoadConfig{Rate: 1000}
	for _, c := range h.collectors {
		cfg.Endpoints = append(cfg.Endpoints, c.GRPC())
	}
	end := harness.Background(h.t, cfg)
	return func() {
		h.t.Helper()
		sum := end()
		require.Equal(h.t, sum.Sent, sum.Acknowledged, "refused or failed: %v", sum.Errors)
		harness.AwaitAll(h.t, h.sink, sum, 30*time.Second)
	}
}
