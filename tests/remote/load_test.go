package remote

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	changes      = 20
	batchTimeout = 200 * time.Millisecond
)

// marked is a configuration whose spans can be told from those of others.
func marked(value string) string {
	return fmt.Sprintf(`
processors:
  attributes/test: {actions: [{key: pushed.%s, value: "yes", action: upsert}]}
service: {pipelines: {traces: {processors: [attributes/test, batch]}}}`, value)
}

// clients are what sends while configurations change: gRPC with the back-off of grpc-go, HTTP, and a heavier stream. Nobody
// sends anything twice.
func (e *env) clients() (stop func() map[string]traffic.LoadSummary) {
	e.t.Helper()
	stops := map[string]func() traffic.LoadSummary{
		"200 requests/s gRPC": e.load(traffic.LoadConfig{Rate: 200, BatchSize: 1, SpansPerTrace: 1, Workers: 8}),
		"200 requests/s HTTP": e.load(traffic.LoadConfig{Rate: 200, BatchSize: 1, SpansPerTrace: 1, Workers: 8, Protocol: traffic.ProtocolHTTP}),
		"5000 spans/s gRPC":   e.load(traffic.LoadConfig{Rate: 5000}),
	}
	harness.Await(e.t, 20*time.Second, "traffic", func() (bool, any) {
		runs := e.sink.Summary().Runs
		return len(runs) == len(stops), len(runs)
	})
	return func() map[string]traffic.LoadSummary {
		sums := map[string]traffic.LoadSummary{}
		for name, stop := range stops {
			sums[name] = stop()
		}
		return sums
	}
}

// requireNothingLost: nobody was refused, no request failed, and what was acknowledged has arrived.
func (e *env) requireNothingLost(sums map[string]traffic.LoadSummary) {
	e.t.Helper()
	for name, sum := range sums {
		e.t.Logf("%s: %d requests, refused %d, failed %d, held (ms) p50 %.1f p99 %.1f max %.1f", name, sum.Requests, sum.Refused, sum.Failed,
			sum.DurationMS.P50, sum.DurationMS.P99, sum.DurationMS.Max)
		require.Zero(e.t, sum.Refused, "%s: %v %s", name, sum.Errors, sum.LastError)
		require.Zero(e.t, sum.Failed, "%s: %v %s", name, sum.Errors, sum.LastError)
		e.awaitAll(sum)
	}
}

// firstSpan waits for a span of a marked configuration, and says how long that took since its push.
func (e *env) firstSpan(value string, pushed time.Time) time.Duration {
	e.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for e.sink.Summary().Attributes["pushed."+value]["yes"] == 0 {
		require.True(e.t, time.Now().Before(deadline), "no span of configuration %s", value)
		time.Sleep(time.Millisecond)
	}
	return time.Since(pushed)
}

// Twenty changes under load, and not one request is refused, fails, or is lost after it was acknowledged.
func TestChangesUnderLoad(t *testing.T) {
	t.Parallel()
	for name, delay := range map[string]time.Duration{"fast backend": 0, "backend that takes 500 ms": 500 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t, options{base: strings.Replace(base, "batch: {timeout: 50ms}", "batch: {timeout: 200ms}", 1)})
			pid := e.collector.PID()
			e.sink.SetDelay(delay)
			stop := e.clients()
			var took []time.Duration
			for i := range changes {
				value := fmt.Sprint(i)
				took = append(took, e.firstSpan(value, e.fleet.push(value, marked(value)))-batchTimeout-delay)
				if i%2 == 0 { // the others supersede one that is on trial
					e.fleet.await(0, value, "APPLIED")
				}
			}
			e.fleet.await(0, fmt.Sprint(changes-1), "APPLIED")
			sums := stop()
			slices.Sort(took)
			t.Logf("first span under a new configuration, beyond the batch timeout and the backend: median %v, max %v", took[changes/2], took[changes-1])
			e.requireNothingLost(sums)
			require.Equal(t, pid, e.collector.PID())
			if delay == 0 {
				require.Less(t, took[0], 100*time.Millisecond)
				require.Less(t, took[changes/2], time.Second)
			}
			e.collector.Stop()
		})
	}
}

// A configuration whose start fails, and one that is refused, cost nobody anything.
func TestBadChangesUnderLoad(t *testing.T) {
	t.Parallel()
	e := start(t, options{binary: harness.Binary(t, "test/otelcol-unruly")})
	stop := e.clients()
	for i, body := range []string{unrulyProcessor("start", "error"), unrulyProcessor("create", "error"), unrulyExtension("start", "error"), unrulyProcessor("ready", "permanent"), "receivers: ["} {
		hash := fmt.Sprintf("bad-%d", i)
		e.fleet.push(hash, body)
		e.fleet.await(0, hash, "FAILED")
		e.awaitProcessors("batch")
	}
	e.requireNothingLost(stop())
	e.collector.Stop()
}

// In a stock build the process executes itself again: a moment of refused requests, and then the last good configuration.
func TestFailedStartInStockBuild(t *testing.T) {
	t.Parallel()
	e := start(t, options{binary: harness.Binary(t, "test/otelcol-thirdparty")})
	e.awaitProcessors("batch")
	windows := []time.Duration{}
	for i := range 3 {
		stop := e.load(traffic.LoadConfig{Rate: 500, BatchSize: 1, SpansPerTrace: 1, Workers: 2, Protocol: traffic.ProtocolHTTP})
		arrived := e.sink.Summary().Requests
		harness.Await(t, 20*time.Second, "traffic", func() (bool, any) { now := e.sink.Summary().Requests; return now > arrived, now })
		hash := fmt.Sprintf("bad-%d", i)
		e.fleet.push(hash, unrulyProcessor("start", "error"))
		e.fleet.await(0, hash, "FAILED")
		e.collector.AwaitReady()
		sum := stop()
		windows = append(windows, time.Duration(sum.Refused+sum.Failed)*time.Second/500)
	}
	slices.Sort(windows)
	t.Logf("refused for %v", windows)
	require.LessOrEqual(t, windows[0], 150*time.Millisecond)
	e.requireWorks("batch") // the core's own main listens for signals a moment after it is ready
	e.collector.Stop()
}
