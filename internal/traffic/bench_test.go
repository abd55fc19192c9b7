package traffic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// BenchmarkGenerate makes and marshals requests of 100 spans.
func BenchmarkGenerate(b *testing.B) {
	cfg := (&LoadConfig{SlowRatio: 0.1, ErrorRatio: 0.05}).withDefaults()
	g, s := newGenerator(cfg), newSchedule(cfg, time.Now())
	b.ReportAllocs()
	spans := 0
	for b.Loop() {
		j, ok, err := s.next(time.Now())
		if !ok || err != nil {
			b.Fatal(err)
		}
		request := ptraceotlp.NewExportRequestFromTraces(g.traces(&j))
		if _, err := request.MarshalProto(); err != nil {
			b.Fatal(err)
		}
		spans += j.spans()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(spans), "ns/span")
}

// BenchmarkConsume counts requests of 100 spans, as they come from the wire. The requests repeat: all but the first round of
// them are duplicates, which saves the sink the look at the trace; BenchmarkConsumeDistinct has that too.
func BenchmarkConsume(b *testing.B) {
	requests := unmarshalled(b, 200)
	sink, err := NewSink(SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.ReportAllocs()
	spans := 0
	for i := 0; b.Loop(); i++ {
		td := requests[i%len(requests)]
		if err := sink.ConsumeTraces(b.Context(), td); err != nil {
			b.Fatal(err)
		}
		spans += td.SpanCount()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(spans), "ns/span")
}

// BenchmarkConsumeDistinct is BenchmarkConsume with spans that are new: the sink forgets between the rounds.
func BenchmarkConsumeDistinct(b *testing.B) {
	requests := unmarshalled(b, 200)
	sink, err := NewSink(SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	b.ReportAllocs()
	spans := 0
	for i := 0; b.Loop(); i++ {
		if i%len(requests) == 0 {
			sink.Reset()
		}
		td := requests[i%len(requests)]
		if err := sink.ConsumeTraces(b.Context(), td); err != nil {
			b.Fatal(err)
		}
		spans += td.SpanCount()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(spans), "ns/span")
}

// unmarshalled are requests whose memory is laid out as a receiver's.
func unmarshalled(tb testing.TB, n int) []ptrace.Traces {
	tb.Helper()
	cfg := (&LoadConfig{SlowRatio: 0.1, ErrorRatio: 0.05, Run: "0badcafe"}).withDefaults()
	g, s := newGenerator(cfg), newSchedule(cfg, time.Now())
	var out []ptrace.Traces
	for range n {
		j, _, err := s.next(time.Now())
		require.NoError(tb, err)
		wire, err := ptraceotlp.NewExportRequestFromTraces(g.traces(&j)).MarshalProto()
		require.NoError(tb, err)
		request := ptraceotlp.NewExportRequest()
		require.NoError(tb, request.UnmarshalProto(wire))
		out = append(out, request.Traces())
	}
	return out
}

// BenchmarkLoadToSink sends 10,000 spans over loopback, both ends in this process.
func BenchmarkLoadToSink(b *testing.B) {
	for _, protocol := range []string{ProtocolGRPC, ProtocolHTTP} {
		b.Run(protocol, func(b *testing.B) {
			sink := startSink(b, SinkConfig{})
			b.ReportAllocs()
			spans := int64(0)
			for b.Loop() {
				sent, err := RunLoad(b.Context(), LoadConfig{Endpoints: []string{endpointOf(sink, protocol)}, Protocol: protocol, Traces: 1000})
				require.NoError(b, err)
				require.Equal(b, sent.Sent, sent.Acknowledged)
				spans += sent.Sent
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(spans), "ns/span")
		})
	}
}
