package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// way is one way to bring a configuration to a Collector.
type way struct {
	name   string
	binary string
	// prepare starts the Collector; change brings a marked configuration to it.
	prepare func(e *env)
	change  func(e *env, value string)
}

// plain is the base configuration without the agent, marked.
func plain(t testing.TB, value string) string {
	t.Helper()
	before, after, ok := strings.Cut(base, "  opamp:\n")
	require.True(t, ok)
	_, after, ok = strings.Cut(after, "service:\n")
	require.True(t, ok)
	content := before + "service:\n" + strings.Replace(after, "[health_check, opamp]", "[health_check]", 1)
	content = strings.Replace(content, "processors:\n", fmt.Sprintf("processors:\n  attributes/test: {actions: [{key: pushed.%s, value: \"yes\", action: upsert}]}\n", value), 1)
	content = strings.Replace(content, "processors: [batch]", "processors: [attributes/test, batch]", 1)
	return strings.Replace(content, "batch: {timeout: 50ms}", "batch: {timeout: 200ms}", 1)
}

var ways = []way{
	{"otelcol-collie, pushed by the server", "", func(*env) {}, func(e *env, value string) { e.fleet.push(value, marked(value)) }},
	{"stock build with our agent and receiver, pushed", "test/otelcol-thirdparty", func(*env) {}, func(e *env, value string) { e.fleet.push(value, marked(value)) }},
	{"stock build, edit and SIGHUP", "test/otelcol-stock", func(e *env) { e.writeBase(plain(e.t, "first")) }, func(e *env, value string) {
		e.writeBase(plain(e.t, value))
		e.collector.Signal(syscall.SIGHUP)
	}},
	{"stock build, stop and start", "test/otelcol-stock", func(e *env) { e.writeBase(plain(e.t, "first")) }, func(e *env, value string) {
		e.writeBase(plain(e.t, value))
		e.collector.Stop()
		e.collector.Start()
	}},
}

// BenchmarkReload changes the configuration ten times under load, each way, side by side.
func BenchmarkReload(b *testing.B) {
	const times = 10
	report := &strings.Builder{}
	w := tabwriter.NewWriter(report, 0, 0, 2, ' ', 0)
	for range b.N {
		for _, delay := range []time.Duration{0, 500 * time.Millisecond} {
			_, _ = fmt.Fprintf(w, "\nbackend takes %v\tfirst span, ms\trefused of\trefused of\trefused of\trequests held, ms\n", delay)
			_, _ = fmt.Fprintf(w, "\tmedian / max\tgRPC 200/s\tHTTP 200/s\t5000 spans/s\tp50 / p99 / max\n")
			for _, way := range ways {
				took, sums := measure(b, way, delay, times)
				row := func(name string) string {
					return fmt.Sprintf("%.1f", float64(sums[name].Refused+sums[name].Failed)/times)
				}
				held := sums["200 requests/s gRPC"].DurationMS
				_, _ = fmt.Fprintf(w, "%s\t%d / %d\t%s\t%s\t%s\t%.1f / %.1f / %.1f\n", way.name, took[times/2].Milliseconds(), took[times-1].Milliseconds(),
					row("200 requests/s gRPC"), row("200 requests/s HTTP"), row("5000 spans/s gRPC"), held.P50, held.P99, held.Max)
			}
		}
	}
	require.NoError(b, w.Flush())
	b.Log("refused or failed per change, without client retries; the first span under the new configuration beyond the batch timeout of\n200 ms and the backend's own time\n" + report.String())
}

func measure(b *testing.B, way way, delay time.Duration, times int) ([]time.Duration, map[string]traffic.LoadSummary) {
	b.Helper()
	e := &env{t: b, fleet: startFleet(b), sink: harness.StartSink(b), file: filepath.Join(b.TempDir(), "base.yaml")}
	e.writeBase(strings.Replace(base, "batch: {timeout: 50ms}", "batch: {timeout: 200ms}", 1))
	config, binary := "opamp:"+e.file, ""
	if way.binary != "" {
		binary = harness.Binary(b, way.binary)
	}
	if strings.HasSuffix(way.binary, "stock") {
		config = e.file
	}
	way.prepare(e)
	e.collector = harness.New(b, harness.Options{
		Name: way.name, Args: []string{"--config=" + config}, Binary: binary,
		Env: map[string]string{"SERVER": e.fleet.address, "COLLIE_BACKEND_ENDPOINT": e.sink.GRPCEndpoint()},
	})
	e.collector.Start()
	e.sink.SetDelay(delay)
	stop := e.clients()
	var took []time.Duration
	for i := range times {
		value, began := fmt.Sprint(i), time.Now()
		way.change(e, value)
		took = append(took, e.firstSpan(value, began)-batchTimeout-delay)
		time.Sleep(time.Second) // the pace of the measurement: clients come back
	}
	sums := stop()
	slices.Sort(took)
	e.collector.Stop()
	_ = os.Remove(e.file)
	return took, sums
}
