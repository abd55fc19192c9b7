package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// topology is one way to start a Collector from configs/, and what it moves.
type topology struct {
	configs     []string
	backend     string            // the variable that names where it sends to
	env         map[string]string // beside the backend
	onlyTraces  bool
	hostMetrics bool
	http        bool // has an OTLP/HTTP receiver
	attribute   [2]string
}

// environment makes it send to the sink.
func (tc topology) environment(sink *traffic.Sink) map[string]string {
	env := map[string]string{tc.backend: sink.GRPCEndpoint()}
	if tc.backend == "COLLIE_SAMPLERS" {
		env[tc.backend] = "[" + sink.GRPCEndpoint() + "]"
	}
	for k, v := range tc.env {
		env[k] = v
	}
	return env
}

// topologies lists every file of configs/; TestEveryConfigIsStarted holds it to the folder.
var topologies = map[string]topology{
	"quickstart": {configs: []string{"quickstart.yaml"}, backend: "COLLIE_BACKEND_ENDPOINT", http: true},
	"agent": {
		configs: []string{"agent.yaml"}, backend: "COLLIE_GATEWAY_ENDPOINT", http: true, hostMetrics: true,
		attribute: [2]string{"host.name", "test-host"},
	},
	"agent fast":        {configs: []string{"agent.yaml", "agent-fast.yaml"}, backend: "COLLIE_GATEWAY_ENDPOINT", http: true, hostMetrics: true},
	"agent with snappy": {configs: []string{"agent.yaml"}, backend: "COLLIE_GATEWAY_ENDPOINT", http: true, env: map[string]string{"COLLIE_GATEWAY_COMPRESSION": "snappy"}},
	"agent in Kubernetes": {
		configs: []string{"agent.yaml", "agent-kubernetes.yaml"}, backend: "COLLIE_GATEWAY_ENDPOINT", http: true, hostMetrics: true,
		env: map[string]string{"K8S_NODE_NAME": "node-7"}, attribute: [2]string{"k8s.node.name", "node-7"},
	},
	"gateway":        {configs: []string{"gateway.yaml"}, backend: "COLLIE_BACKEND_ENDPOINT", http: true},
	"single gateway": {configs: []string{"single-gateway.yaml"}, backend: "COLLIE_BACKEND_ENDPOINT", http: true, env: keepAll},
	"sampler":        {configs: []string{"tiered/sampler.yaml"}, backend: "COLLIE_BACKEND_ENDPOINT", onlyTraces: true, env: keepAll},
	"balancer":       {configs: []string{"tiered/balancer.yaml"}, backend: "COLLIE_SAMPLERS", http: true, onlyTraces: true},
}

// keepAll makes a sampler keep every trace and decide soon.
var keepAll = map[string]string{"COLLIE_BASELINE_PERCENT": "100", "COLLIE_DECISION_WAIT": "1s", "COLLIE_SPAN_METRICS_INTERVAL": "1s"}

// startedElsewhere are files whose start and traffic other tests of this package show.
var startedElsewhere = map[string]string{
	"agent-logs.yaml":             "TestLogFilesArriveOnce",
	"managed-agent.yaml":          "TestDemo",
	"managed-gateway.yaml":        "TestDemo",
	"examples/add-attribute.yaml": "TestDemo",
	"examples/slow-only.yaml":     "TestDemo",
	"agent-tiered.yaml":           "TestAgentSplitsSignals",
	"tiered/balancer-dns.yaml":    "TestSamplerKilled",
	"tiered/balancer-k8s.yaml":    "TestKubernetesResolver",
}

func TestEveryConfigIsStarted(t *testing.T) {
	t.Parallel()
	started := map[string]bool{}
	for _, tc := range topologies {
		for _, config := range tc.configs {
			started[config] = true
		}
	}
	root := harness.Config(t, "")
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		if err == nil && filepath.Ext(path) == ".yaml" && d.Name() != "kustomization.yaml" && startedElsewhere[name] == "" {
			require.True(t, started[name], "configs/%s is in no test: add it to topologies", name)
		}
		return err
	}))
}

func TestShippedConfigsMoveData(t *testing.T) {
	t.Parallel()
	for name, tc := range topologies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := harness.StartSink(t)
			c := harness.New(t, harness.Options{Configs: tc.configs, Env: tc.environment(sink)})
			c.Start()
			out, err := c.Validate()
			require.NoError(t, err, out)

			sum := load(t, traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Traces: 100})
			require.Equal(t, sum.Sent, sum.Acknowledged, "%v", sum.Errors)
			harness.AwaitAll(t, sink, sum, 30*time.Second)
			if tc.http {
				sum := load(t, traffic.LoadConfig{Endpoints: []string{c.HTTP()}, Protocol: traffic.ProtocolHTTP, Traces: 100})
				require.Equal(t, sum.Sent, sum.Acknowledged, "%v", sum.Errors)
				harness.AwaitAll(t, sink, sum, 30*time.Second)
			}
			if !tc.onlyTraces {
				requireMetricsAndLogs(t, c, sink, tc.hostMetrics)
			}
			if tc.attribute[0] != "" {
				require.Equal(t, sink.Summary().Spans, sink.Summary().Attributes[tc.attribute[0]][tc.attribute[1]])
			}
			c.Stop()
		})
	}
}

func requireMetricsAndLogs(t *testing.T, c *harness.Collector, sink *traffic.Sink, hostMetrics bool) {
	t.Helper()
	sendMetricAndLog(t, c.GRPC())
	harness.Await(t, 30*time.Second, "metrics and logs at the sink", func() (bool, any) {
		s := sink.Summary()
		ok := s.Metrics["e2e.gauge"].Sum == 42 && s.LogRecords == 1
		if hostMetrics {
			ok = ok && s.Metrics["system.memory.usage"].DataPoints > 0
		}
		return ok, []any{s.Metrics, s.LogRecords}
	})
}

func TestLogFilesArriveOnce(t *testing.T) {
	t.Parallel()
	sink := harness.StartSink(t)
	logFile := filepath.Join(t.TempDir(), "app.log")
	require.NoError(t, os.WriteFile(logFile, []byte("one\ntwo\nthree\n"), 0o600))
	c := harness.Start(t, harness.Options{
		Configs: []string{"agent.yaml", "agent-logs.yaml"},
		Env:     map[string]string{"COLLIE_GATEWAY_ENDPOINT": sink.GRPCEndpoint(), "COLLIE_LOG_FILES": logFile},
	})
	records := func(want int64) {
		t.Helper()
		harness.Await(t, 30*time.Second, "log records at the sink", func() (bool, any) {
			n := sink.Summary().LogRecords
			return n == want, n
		})
	}
	records(3)
	c.Stop()
	f, err := os.OpenFile(logFile, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString("four\nfive\n")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	c.Start()
	records(5) // and not 8: the offset was kept
}

// An agent in front of tail sampling sends its traces one way, and its metrics and logs another.
func TestAgentSplitsSignals(t *testing.T) {
	t.Parallel()
	balancer, gateway := harness.StartSink(t), harness.StartSink(t)
	c := harness.Start(t, harness.Options{
		Configs: []string{"agent.yaml", "agent-tiered.yaml"},
		Env:     map[string]string{"COLLIE_GATEWAY_ENDPOINT": gateway.GRPCEndpoint(), "COLLIE_BALANCER_ENDPOINT": balancer.GRPCEndpoint()},
	})
	sum := load(t, traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Traces: 100})
	harness.AwaitAll(t, balancer, sum, 30*time.Second)
	requireMetricsAndLogs(t, c, gateway, true)
	require.Zero(t, gateway.Summary().Spans)
	require.Zero(t, balancer.Summary().DataPoints+balancer.Summary().LogRecords)
}

// What must not leave the house is taken out wherever traces leave for the backend.
func TestRedaction(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gateway", "single gateway", "sampler"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink, tc := harness.StartSink(t), topologies[name]
			c := harness.Start(t, harness.Options{Configs: tc.configs, Env: tc.environment(sink)})
			td := ptrace.NewTraces()
			span := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty()
			span.SetTraceID([16]byte{1})
			for _, key := range []string{"http.request.header.authorization", "http.response.header.set-cookie", "user.email", "http.route"} {
				span.Attributes().PutStr(key, "value")
			}
			conn, err := grpc.NewClient(c.GRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			_, err = ptraceotlp.NewGRPCClient(conn).Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(td))
			require.NoError(t, err)
			harness.Await(t, 30*time.Second, "the span at the sink", func() (bool, any) {
				n := sink.Summary().Spans
				return n == 1, n
			})
			got := sink.Summary().Attributes
			require.Equal(t, map[string]int64{"value": 1}, got["http.route"])
			require.NotContains(t, got, "http.request.header.authorization")
			require.NotContains(t, got, "http.response.header.set-cookie")
			require.Len(t, got["user.email"], 1)
			require.NotContains(t, got["user.email"], "value", "hashed")
		})
	}
}
