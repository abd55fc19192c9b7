package traffic

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

func idleSink(t *testing.T) *Sink {
	t.Helper()
	s, err := NewSink(SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	return s
}

// numbered is a request with one span per number.
func numbered(run, kind string, traceSpans int, numbers ...int) ptrace.Traces {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", "shop")
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	for _, number := range numbers {
		a := spans.AppendEmpty().Attributes()
		a.PutStr(AttributeRun, run)
		a.PutStr(AttributeKind, kind)
		a.PutInt(AttributeSeq, int64(number))
		a.PutInt(AttributeTraceSpans, int64(traceSpans))
	}
	return td
}

func TestNumbersAreAccountedFor(t *testing.T) {
	t.Parallel()
	s := idleSink(t)
	consume := func(td ptrace.Traces) { require.NoError(t, s.ConsumeTraces(t.Context(), td)) }
	consume(numbered("a", KindFast, 3, 0, 1))       // trace 0 in part
	consume(numbered("a", KindFast, 3, 1, 2))       // the rest of it, one span again
	consume(numbered("a", KindSlow, 3, 9, 11))      // trace 3 in part
	consume(numbered("b", KindError, 1, 1<<32-1))   // the last number, a whole trace
	consume(numbered("b", KindError, 1, 1<<32, -1)) // no numbers
	consume(numbered("", KindFast, 3, 4))
	got := s.Summary()
	require.Equal(t, int64(6), got.Requests)
	require.Equal(t, int64(10), got.Spans)
	require.Equal(t, map[string]int64{"shop": 10}, got.Services)
	require.Equal(t, int64(6), got.Distinct)
	require.Equal(t, int64(1), got.Duplicates)
	require.Equal(t, int64(3), got.Unnumbered)
	require.Equal(t, map[string]RunSummary{
		"a": {Spans: 6, Distinct: 5, Duplicates: 1, Missing: 7, TraceSpans: 3},
		"b": {Spans: 1, Distinct: 1, Missing: 1<<32 - 1, TraceSpans: 1},
	}, got.Runs)
	require.Equal(t, map[string]TraceCount{KindFast: {Whole: 1}, KindSlow: {Partial: 1}, KindError: {Whole: 1}}, got.Traces)
	require.Equal(t, map[uint32]int{0: 3, 3: 2}, s.TraceSpans("a"))
	require.Empty(t, s.TraceSpans("nobody"))
	require.True(t, s.Received("nobody").IsEmpty())
	require.Equal(t, []uint32{5, 10}, Missing(setOf([][2]uint32{{0, 2}, {5, 5}, {9, 11}}), s.Received("a")).ToArray())

	copied := s.Received("a")
	copied.Add(5)
	require.Equal(t, int64(5), s.Summary().Runs["a"].Distinct)
}

func TestTablesAreBounded(t *testing.T) {
	t.Parallel()
	s := idleSink(t)
	for i := range 2000 {
		td := numbered(fmt.Sprintf("run%d", i), fmt.Sprintf("kind%d", i), 10, i)
		resource := td.ResourceSpans().At(0).Resource().Attributes()
		resource.PutStr("service.name", fmt.Sprintf("service%d", i))
		resource.PutStr(fmt.Sprintf("key%d", i), "value")
		resource.PutInt("int", int64(i))
		resource.PutDouble("double", float64(i))
		require.NoError(t, s.ConsumeTraces(t.Context(), td))
		md := pmetric.NewMetrics()
		metric := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		metric.SetName(fmt.Sprintf("metric%d", i))
		metric.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(2)
		require.NoError(t, s.ConsumeMetrics(t.Context(), md))
	}
	got := s.Summary()
	require.Len(t, got.Runs, maxRuns)
	require.Equal(t, int64(2000-maxRuns), got.RunsOverflow)
	require.Len(t, got.Services, maxServices+1)
	require.Equal(t, int64(2000-maxServices), got.Services[otherName])
	require.Len(t, got.Attributes, maxAttributes+1)
	for _, key := range []string{"int", "double", "service.name"} {
		require.Len(t, got.Attributes[key], maxAttributeValues+1, key)
		require.Equal(t, int64(2000-maxAttributeValues), got.Attributes[key][otherName], key)
	}
	require.NotContains(t, got.Attributes, AttributeSeq)
	require.Equal(t, int64(1), got.Attributes[AttributeKind]["kind3"])
	require.Len(t, got.Metrics, maxMetrics+1)
	require.Equal(t, MetricSummary{DataPoints: 2000 - maxMetrics, Sum: 2 * (2000 - maxMetrics)}, got.Metrics[otherName])
	require.Equal(t, int64(2000), got.DataPoints)
}

func TestKindsAreBoundedPerRun(t *testing.T) {
	t.Parallel()
	s := idleSink(t)
	for i := range 40 {
		require.NoError(t, s.ConsumeTraces(t.Context(), numbered("a", fmt.Sprintf("kind%02d", i), 1, i)))
	}
	require.Len(t, s.Summary().Traces, maxKinds+1)
	require.Equal(t, TraceCount{Whole: 40 - maxKinds}, s.Summary().Traces[otherName])
}

func TestMetricsAreSummedByType(t *testing.T) {
	t.Parallel()
	md := pmetric.NewMetrics()
	metrics := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	add := func(name string) pmetric.Metric {
		m := metrics.AppendEmpty()
		m.SetName(name)
		return m
	}
	gauge := add("gauge").SetEmptyGauge().DataPoints()
	gauge.AppendEmpty().SetDoubleValue(0.5)
	gauge.AppendEmpty().SetIntValue(2)
	add("sum").SetEmptySum().DataPoints().AppendEmpty().SetIntValue(3)
	add("histogram").SetEmptyHistogram().DataPoints().AppendEmpty().SetCount(4)
	add("exponential").SetEmptyExponentialHistogram().DataPoints().AppendEmpty().SetCount(5)
	add("summary").SetEmptySummary().DataPoints().AppendEmpty().SetCount(6)
	add("empty")
	s := idleSink(t)
	require.NoError(t, s.ConsumeMetrics(t.Context(), md))
	require.Equal(t, map[string]MetricSummary{
		"gauge": {2, 2.5}, "sum": {1, 3}, "histogram": {1, 4}, "exponential": {1, 5}, "summary": {1, 6}, "empty": {},
	}, s.Summary().Metrics)
	require.Equal(t, int64(6), s.Summary().DataPoints)
}

func TestLogsAndDurationsAreCounted(t *testing.T) {
	t.Parallel()
	s := idleSink(t)
	ld := plog.NewLogs()
	records := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	records.AppendEmpty()
	records.AppendEmpty()
	require.NoError(t, s.ConsumeLogs(t.Context(), ld))
	td := ptrace.NewTraces()
	spans := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for _, d := range []time.Duration{0, 5 * time.Millisecond, 5*time.Millisecond + 1, time.Second, time.Hour, -time.Second} {
		span := spans.AppendEmpty()
		span.SetStartTimestamp(pcommon.Timestamp(time.Hour))
		span.SetEndTimestamp(pcommon.Timestamp(time.Hour + d))
	}
	require.NoError(t, s.ConsumeTraces(t.Context(), td))
	got := s.Summary()
	require.Equal(t, int64(2), got.LogRecords)
	require.Equal(t, []int64{3, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1}, got.SpanDurationsMS.Counts)
	require.Equal(t, int64(6), got.Unnumbered)
	_, err := json.Marshal(got)
	require.NoError(t, err)
}
