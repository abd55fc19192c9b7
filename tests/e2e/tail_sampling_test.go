package e2e

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	slowRatio       = 0.1
	errorRatio      = 0.05
	baselinePercent = 5
)

// startSamplers runs n samplers that send to the sink, on addresses 127.0.0.11 and up, all on one port.
func startSamplers(t *testing.T, n int, sink *traffic.Sink, env map[string]string) []*harness.Collector {
	t.Helper()
	port := harness.FreePort(t, "127.0.0.11")
	all := map[string]string{
		"COLLIE_BACKEND_ENDPOINT": sink.GRPCEndpoint(), "COLLIE_DECISION_WAIT": "3s",
		"COLLIE_SPAN_METRICS_INTERVAL": "1s", "COLLIE_BASELINE_PERCENT": fmt.Sprint(baselinePercent),
	}
	for k, v := range env {
		all[k] = v
	}
	var samplers []*harness.Collector
	for i := range n {
		samplers = append(samplers, harness.Start(t, harness.Options{
			Name: fmt.Sprintf("sampler-%d", i), Configs: []string{"tiered/sampler.yaml"}, Env: all,
			Listen: fmt.Sprintf("127.0.0.%d", 11+i), GRPCPort: port,
		}))
	}
	return samplers
}

// Two balancers, three samplers, 2,000 traces of 10 spans over 5 services; the spans of each trace enter through both
// balancers. Whole traces must come out: every failed one, every slow one, and the baseline's share of the others.
func TestTieredTailSampling(t *testing.T) {
	t.Parallel()
	sink := harness.StartSink(t)
	samplers := startSamplers(t, 3, sink, nil)
	var addresses, endpoints []string
	for _, s := range samplers {
		addresses = append(addresses, s.GRPC())
	}
	for i := range 2 {
		balancer := harness.Start(t, harness.Options{
			Name: fmt.Sprintf("balancer-%d", i), Configs: []string{"tiered/balancer.yaml"},
			Env: map[string]string{"COLLIE_SAMPLERS": "[" + strings.Join(addresses, ",") + "]"},
		})
		endpoints = append(endpoints, balancer.GRPC())
	}

	const traces, spansPerTrace = 2000, 10
	sum := load(t, traffic.LoadConfig{
		Endpoints: endpoints, Traces: traces, Services: 5, SpansPerTrace: spansPerTrace,
		Rate: 20000, SlowRatio: slowRatio, ErrorRatio: errorRatio,
	})
	require.EqualValues(t, traces*spansPerTrace, sum.Acknowledged, "%v", sum.Errors)

	// span_metrics count every span, not the sampled ones.
	harness.Await(t, 60*time.Second, "span metrics of all spans", func() (bool, any) {
		calls := sink.Summary().Metrics["traces.span.metrics.calls"].Sum
		return calls == traces*spansPerTrace, calls
	})
	awaitSettled(t, sink)

	kept := sink.TraceSpans(sum.Run)
	count := map[string]int{}
	for trace := range traces {
		kind := traffic.KindOf(sum.Run, trace, slowRatio, errorRatio)
		spans := kept[uint32(trace)]
		require.Contains(t, []int{0, spansPerTrace}, spans, "trace %d (%s) is split: %d spans arrived", trace, kind, spans)
		if spans == spansPerTrace {
			count[kind]++
		}
	}
	require.EqualValues(t, sum.Traces[traffic.KindError], count[traffic.KindError], "all failed traces arrive")
	require.EqualValues(t, sum.Traces[traffic.KindSlow], count[traffic.KindSlow], "all slow traces arrive")
	requireBinomial(t, int(sum.Traces[traffic.KindFast]), baselinePercent/100.0, count[traffic.KindFast])
	require.Zero(t, sink.Summary().Duplicates)
	t.Logf("sent %v, kept %v", sum.Traces, count)
}

// awaitSettled waits until nothing new has arrived for longer than the decision wait.
func awaitSettled(t *testing.T, sink *traffic.Sink) {
	t.Helper()
	last, since := int64(-1), time.Now()
	harness.Await(t, 60*time.Second, "no more spans at the sink", func() (bool, any) {
		if now := sink.Summary().Spans; now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 6*time.Second, last
	})
}

// requireBinomial fails when k of n trials at probability p is more than 4.5 standard deviations off: once in 150,000 runs.
func requireBinomial(t *testing.T, n int, p float64, k int) {
	t.Helper()
	mean, deviation := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	require.InDelta(t, mean, float64(k), 4.5*deviation, "%d of %d at a rate of %v", k, n, p)
}
