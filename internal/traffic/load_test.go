package traffic

import (
	"context"
	"encoding/json"
	"math"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEverySpanArrivesOnce(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]LoadConfig{
		"grpc":                  {Protocol: ProtocolGRPC},
		"http":                  {Protocol: ProtocolHTTP},
		"grpc zstd":             {Protocol: ProtocolGRPC, Compression: "zstd"},
		"http gzip":             {Protocol: ProtocolHTTP, Compression: "gzip"},
		"more spans than batch": {SpansPerTrace: 33, Services: 4, BatchSize: 3, Traces: 103},
		"one span per trace":    {SpansPerTrace: 1},
		"uneven spread":         {SpansPerTrace: 7, Services: 3, BatchSize: 10},
		"a later phase":         {FirstTrace: 500},
		"one worker":            {Workers: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t, SinkConfig{})
			if cfg.Traces == 0 {
				cfg.Traces = 1003
			}
			cfg.Endpoints, cfg.Run = []string{endpointOf(sink, cfg.Protocol)}, "0badcafe"
			cfg.SlowRatio, cfg.ErrorRatio = 0.1, 0.05
			filled := cfg.withDefaults()
			sent := mustLoad(t, cfg)
			spans := int64(cfg.Traces * filled.SpansPerTrace)
			require.Equal(t, spans, sent.Sent)
			require.Equal(t, spans, sent.Acknowledged)
			require.Empty(t, sent.Errors)
			first := uint32(cfg.FirstTrace * filled.SpansPerTrace)
			require.Equal(t, [][2]uint32{{first, first + uint32(spans) - 1}}, sent.AcknowledgedRanges)

			got := sink.Summary()
			require.Equal(t, spans, got.Spans)
			require.Equal(t, spans, got.Distinct)
			require.Zero(t, got.Duplicates)
			require.Zero(t, got.Unnumbered)
			require.Equal(t, int64(first), got.Missing)
			require.True(t, sent.AcknowledgedSet().Equals(sink.Received("0badcafe")))
			require.Len(t, got.Services, filled.Services)
			for kind, n := range sent.Traces {
				require.Equal(t, TraceCount{Whole: n}, got.Traces[kind], kind)
			}
			for number, n := range sink.TraceSpans("0badcafe") {
				require.GreaterOrEqual(t, int(number), cfg.FirstTrace)
				require.Equal(t, filled.SpansPerTrace, n)
			}
		})
	}
}

func TestKindsAreDeterministicAndAsOftenAsAsked(t *testing.T) {
	t.Parallel()
	const traces, slowRatio, errorRatio = 100_000, 0.1, 0.05
	counts := map[string]float64{}
	ids := map[[16]byte]bool{}
	for i := range traces {
		kind := KindOf("12345678", i, slowRatio, errorRatio)
		require.Equal(t, kind, KindOf("12345678", i, slowRatio, errorRatio))
		counts[kind]++
		ids[TraceIDOf("12345678", i)] = true
	}
	require.Len(t, ids, traces)
	for kind, p := range map[string]float64{KindError: errorRatio, KindSlow: (1 - errorRatio) * slowRatio} {
		require.InDelta(t, p*traces, counts[kind], 5*math.Sqrt(traces*p*(1-p)), kind)
	}
	require.Equal(t, float64(traces), counts[KindError]+counts[KindSlow]+counts[KindFast])
	// Pinned: tests and people compare runs of different builds.
	require.Equal(t, []string{"slow", "fast", "fast", "slow"}, []string{
		KindOf("12345678", 0, 0.1, 0.05), KindOf("12345678", 1, 0.1, 0.05), KindOf("12345678", 2, 0.1, 0.05), KindOf("12345678", 3, 0.1, 0.05),
	})
	require.Equal(t, KindFast, KindOf("12345678", 7, 0, 0))
	require.Equal(t, KindError, KindOf("12345678", 7, 1, 1))
	require.Equal(t, KindSlow, KindOf("12345678", 7, 1, 0))
}

func TestRetryLosesNothing(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{ProtocolGRPC, ProtocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t, SinkConfig{FailRatio: 0.3})
			sent := mustLoad(t, LoadConfig{Endpoints: []string{endpointOf(sink, protocol)}, Protocol: protocol, Traces: 300, Retry: true, Workers: 8})
			require.Equal(t, int64(3000), sent.Acknowledged)
			require.Zero(t, sent.Refused)
			require.NotZero(t, sent.Retried)
			require.NotEmpty(t, sent.Errors)
			require.NotEmpty(t, sent.LastError)
			require.True(t, Missing(sent.AcknowledgedSet(), sink.Received(sent.Run)).IsEmpty())
			require.Equal(t, int64(3000), sink.Summary().Distinct)
		})
	}
}

func TestRefusedSpansAreCounted(t *testing.T) {
	t.Parallel()
	for protocol, code := range map[string]string{ProtocolGRPC: "grpc Unavailable", ProtocolHTTP: "http 503"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t, SinkConfig{FailRatio: 0.5})
			sent := mustLoad(t, LoadConfig{Endpoints: []string{endpointOf(sink, protocol)}, Protocol: protocol, Traces: 1000})
			require.NotZero(t, sent.Refused)
			require.Zero(t, sent.Failed)
			require.Len(t, sent.Errors, 1)
			got := sink.Summary()
			require.Equal(t, got.Rejected, sent.Errors[code])
			require.Equal(t, got.Requests, sent.Requests)
			require.Equal(t, got.Spans, sent.Acknowledged)
			require.True(t, sent.AcknowledgedSet().Equals(sink.Received(sent.Run)))
			require.NotZero(t, got.Missing)
		})
	}
}

func TestFailuresAreNotRefusals(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := closed.Addr().String()
	require.NoError(t, closed.Close())
	slow := startSink(t, SinkConfig{Delay: time.Minute})
	for _, protocol := range []string{ProtocolGRPC, ProtocolHTTP} {
		for code, endpoint := range map[string]string{codeConnect: nobody, codeDeadline: endpointOf(slow, protocol)} {
			t.Run(protocol+" "+code, func(t *testing.T) {
				sent := mustLoad(t, LoadConfig{Endpoints: []string{endpoint}, Protocol: protocol, Traces: 2, Timeout: 100 * time.Millisecond})
				require.Equal(t, int64(20), sent.Failed)
				require.Equal(t, map[string]int64{code: 5}, sent.Errors)
				require.NotNil(t, sent.AcknowledgedRanges)
				require.Empty(t, sent.AcknowledgedRanges)
			})
		}
	}
}

func TestPartsOfATraceGoToDifferentEndpoints(t *testing.T) {
	t.Parallel()
	one, two := startSink(t, SinkConfig{}), startSink(t, SinkConfig{})
	sent := mustLoad(t, LoadConfig{Endpoints: []string{one.GRPCEndpoint(), two.GRPCEndpoint()}, Traces: 200})
	for _, sink := range []*Sink{one, two} {
		traces := sink.TraceSpans(sent.Run)
		require.Len(t, traces, 200)
		for number, n := range traces {
			require.Less(t, n, 10, "trace %d", number)
		}
		require.Zero(t, sink.Summary().Traces[KindFast].Whole)
	}
	both := one.Received(sent.Run)
	require.False(t, both.Intersects(two.Received(sent.Run)))
	both.Or(two.Received(sent.Run))
	require.True(t, both.Equals(sent.AcknowledgedSet()))
}

func TestRateIsKept(t *testing.T) {
	t.Parallel()
	for name, rate := range map[string]float64{"low": 100, "high": 3000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t, SinkConfig{})
			sent := mustLoad(t, LoadConfig{Endpoints: []string{sink.GRPCEndpoint()}, Rate: rate, Duration: 2 * time.Second})
			require.InEpsilon(t, rate, sent.SpansPerSecond, 0.1, "%+v", sent.DurationMS)
			require.InDelta(t, 2, sent.ElapsedSeconds, 0.7)
			for kind, n := range sink.Summary().Traces {
				require.Zero(t, n.Partial, kind)
			}
		})
	}
}

func TestEndOfContextStopsTheRun(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]LoadConfig{"waiting for the rate": {Rate: 10}, "as fast as it goes": {}, "retrying": {Retry: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t, SinkConfig{})
			if cfg.Retry {
				sink.SetFailRatio(1)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cfg.Endpoints = []string{sink.GRPCEndpoint()}
			cfg.OnProgress = func(Progress) { cancel() }
			sent, err := RunLoad(ctx, cfg)
			require.NoError(t, err)
			require.NotZero(t, sent.Sent)
			require.Equal(t, sent.Sent, sent.Acknowledged+sent.Refused)
			require.True(t, sent.AcknowledgedSet().Equals(sink.Received(sent.Run)))
		})
	}
}

func TestBadConfigSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg  LoadConfig
		want string
	}{
		"no endpoint":        {LoadConfig{}, "endpoint must name at least one host:port"},
		"endpoint with path": {LoadConfig{Endpoints: []string{"http://x:1/v1"}}, `endpoint must be host:port, got "http://x:1/v1": `},
		"no port":            {LoadConfig{Endpoints: []string{"localhost"}}, `endpoint must be host:port, got "localhost": `},
		"protocol":           {LoadConfig{Protocol: "x"}, `protocol must be grpc or http, got "x"`},
		"compression":        {LoadConfig{Compression: "x"}, `compression must be none, gzip, snappy or zstd, got "x"`},
		"run":                {LoadConfig{Run: "x"}, `run must be 8 lower-case hex digits, got "x"`},
		"rate":               {LoadConfig{Rate: math.NaN()}, "rate must be 0 or more"},
		"traces":             {LoadConfig{Traces: -1}, "traces must be 0 or more"},
		"ratio":              {LoadConfig{SlowRatio: 2}, "slow-ratio must be from 0 to 1, got 2"},
		"numbers":            {LoadConfig{FirstTrace: math.MaxUint32}, "first-trace plus traces must stay below 429496729: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := RunLoad(t.Context(), tt.cfg)
			require.ErrorContains(t, err, tt.want)
			var typed *ConfigError
			require.ErrorAs(t, err, &typed)
		})
	}
}

func TestSummaryRoundTrip(t *testing.T) {
	t.Parallel()
	in := LoadSummary{Run: "0000000a", AcknowledgedRanges: [][2]uint32{{0, 3}, {7, 7}, {65530, 65540}, {math.MaxUint32, math.MaxUint32}}}
	text, err := json.Marshal(in)
	require.NoError(t, err)
	require.Contains(t, string(text), `"acknowledged_ranges":[[0,3],[7,7],[65530,65540],[4294967295,4294967295]]`)
	var out LoadSummary
	require.NoError(t, json.Unmarshal(text, &out))
	require.True(t, in.AcknowledgedSet().Equals(out.AcknowledgedSet()))
	require.Equal(t, uint64(17), out.AcknowledgedSet().GetCardinality())
	require.Equal(t, in.AcknowledgedRanges, ranges(out.AcknowledgedSet()))
}
