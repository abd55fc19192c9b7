// Package direct proves configs/direct/otel.env, the topology without a Collector: a real Go SDK, set up by nothing but
// that file, reaches a sink. It leaves the other topologies, which need processes, to tests/e2e.
package direct

import (
	"bufio"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/collie-otel/collie/internal/traffic"
)

const (
	root  = "../.."
	limit = 20 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests that set the environment do not run in parallel: it belongs to the whole process.

func TestSpansArriveWithTheirResource(t *testing.T) {
	vars := readEnvFile(t)
	sink := startSink(t)
	setEnv(t, vars, sink.GRPCEndpoint(), nil)

	sent := sendTraces(t, 50) // returns when everything sampled was acknowledged

	got := sink.Summary()
	require.Equal(t, int64(sent), got.Spans)
	require.Equal(t, int64(sent), got.Services[vars["OTEL_SERVICE_NAME"]], "services: %v", got.Services)
	for _, pair := range strings.Split(vars["OTEL_RESOURCE_ATTRIBUTES"], ",") {
		key, value, ok := strings.Cut(pair, "=")
		require.True(t, ok, "OTEL_RESOURCE_ATTRIBUTES: %q is not key=value", pair)
		require.Equal(t, int64(sent), got.Attributes[key][value], "%s: %v", key, got.Attributes[key])
	}
}

func TestTheSamplerOfTheEnvironmentDecides(t *testing.T) {
	const traces = 400
	for _, tt := range []struct {
		name     string
		ratio    string
		min, max int64 // traces
	}{
		{name: "keeps all", ratio: "1", min: traces, max: traces},
		{name: "keeps a quarter", ratio: "0.25", min: 60, max: 140}, // 100 expected, four standard deviations
		{name: "keeps none", ratio: "0", min: 0, max: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink := startSink(t)
			setEnv(t, readEnvFile(t), sink.GRPCEndpoint(), map[string]string{"OTEL_TRACES_SAMPLER_ARG": tt.ratio})

			sendTraces(t, traces)

			got := sink.Summary().Spans
			require.Zero(t, got%spansPerTrace, "%d spans: a trace was torn apart", got)
			require.GreaterOrEqual(t, got/spansPerTrace, tt.min)
			require.LessOrEqual(t, got/spansPerTrace, tt.max)
		})
	}
}

func TestTheCallersDecisionIsFollowed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags trace.TraceFlags
		ratio string
		want  int64
	}{
		{name: "sampled", flags: trace.FlagsSampled, ratio: "0", want: 1},
		{name: "not sampled", flags: 0, ratio: "1", want: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink := startSink(t)
			setEnv(t, readEnvFile(t), sink.GRPCEndpoint(), map[string]string{"OTEL_TRACES_SAMPLER_ARG": tt.ratio})
			caller := trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: tt.flags, Remote: true,
			}))

			withProvider(t, func(tracer trace.Tracer) {
				_, span := tracer.Start(caller, "callee")
				span.End()
			})

			require.Equal(t, tt.want, sink.Summary().Spans)
		})
	}
}

func TestTheDefaultEndpointIsTheSinksDefault(t *testing.T) {
	t.Parallel()
	vars := readEnvFile(t)
	require.Equal(t, "http://127.0.0.1:5317", vars["OTEL_EXPORTER_OTLP_ENDPOINT"])
	require.Equal(t, "grpc", vars["OTEL_EXPORTER_OTLP_PROTOCOL"], "5317 is the sink's gRPC port, and these tests use the gRPC exporter")
}

func TestTheQueueHoldsMoreThanABatch(t *testing.T) {
	t.Parallel()
	vars := readEnvFile(t)
	require.Greater(t, number(t, vars, "OTEL_BSP_MAX_QUEUE_SIZE"), number(t, vars, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"))
	require.GreaterOrEqual(t, number(t, vars, "OTEL_BSP_EXPORT_TIMEOUT"), number(t, vars, "OTEL_EXPORTER_OTLP_TIMEOUT"))
}

const spansPerTrace = 3

// sendTraces sends traces of spansPerTrace spans and returns the number of spans once the SDK has handed over all it sampled.
func sendTraces(t *testing.T, traces int) int {
	t.Helper()
	withProvider(t, func(tracer trace.Tracer) {
		for range traces {
			ctx, parent := tracer.Start(t.Context(), "parent", trace.WithAttributes(attribute.String("http.route", "/orders/{id}")))
			for range spansPerTrace - 1 {
				_, child := tracer.Start(ctx, "child")
				child.End()
			}
			parent.End()
		}
	})
	return traces * spansPerTrace
}

// withProvider sets up the SDK from the environment alone, lets it record, and shuts it down: that flushes the batches.
func withProvider(t *testing.T, record func(trace.Tracer)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	exporter, err := otlptracegrpc.New(ctx)
	require.NoError(t, err)
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithIDGenerator(newIDs()))
	record(provider.Tracer("tests/direct"))
	require.NoError(t, provider.Shutdown(ctx))
}

// ids makes the same trace ids in every run, so that ratios come out the same.
type ids struct{ random *rand.ChaCha8 }

func newIDs() ids { return ids{random: rand.NewChaCha8([32]byte{1})} }

func (g ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	_, _ = g.random.Read(id[:]) // never fails
	return id, g.NewSpanID(ctx, id)
}

func (g ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	_, _ = g.random.Read(id[:]) // never fails
	return id
}

func startSink(t *testing.T) *traffic.Sink {
	t.Helper()
	sink, err := traffic.NewSink(traffic.SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, sink.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		require.NoError(t, sink.Shutdown(ctx))
	})
	return sink
}

// setEnv makes the environment that of the file, with the sink's address and changes on top: variables of the machine
// that runs the tests must not decide.
func setEnv(t *testing.T, vars map[string]string, endpoint string, changes map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if key, value, _ := strings.Cut(entry, "="); strings.HasPrefix(key, "OTEL_") {
			t.Setenv(key, value) // restores it after the test
			require.NoError(t, os.Unsetenv(key))
		}
	}
	for key, value := range vars {
		t.Setenv(key, value)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+endpoint)
	for key, value := range changes {
		t.Setenv(key, value)
	}
}

// assignment is what a shell, a container runtime and systemd all read alike: no quotes, no spaces, no expansion.
var assignment = regexp.MustCompile(`^(OTEL_[A-Z_]+)=([A-Za-z0-9_.,:/=%-]+)$`)

// readEnvFile reads configs/direct/otel.env. Every variable, commented out or not, needs a comment before it.
func readEnvFile(t *testing.T) map[string]string {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "configs", "direct", "otel.env"))
	require.NoError(t, err)
	defer f.Close()
	vars := map[string]string{}
	explained := false
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		variable := assignment.FindStringSubmatch(strings.TrimPrefix(line, "#"))
		switch {
		case variable != nil:
			require.True(t, explained, "line %d: %s has no comment before it", n, variable[1])
			explained = false
			if !strings.HasPrefix(line, "#") {
				require.NotContains(t, vars, variable[1], "line %d", n)
				vars[variable[1]] = variable[2]
			}
		case line == "":
			explained = false
		case line == "#": // a paragraph ends, the comment goes on
		default:
			require.True(t, strings.HasPrefix(line, "# "), "line %d: %q is neither KEY=VALUE nor a comment", n, line)
			explained = true
		}
	}
	require.NoError(t, lines.Err())
	require.NotEmpty(t, vars)
	return vars
}

func number(t *testing.T, vars map[string]string, key string) int {
	t.Helper()
	n, err := strconv.Atoi(vars[key])
	require.NoError(t, err, key)
	return n
}
