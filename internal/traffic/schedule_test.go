package traffic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

func scheduleOf(t *testing.T, cfg LoadConfig, start time.Time) *schedule {
	t.Helper()
	return newSchedule(cfg.withDefaults(), start)
}

func TestRateHasNoDriftAndNoLongBurst(t *testing.T) {
	t.Parallel()
	start := time.Now()
	s := scheduleOf(t, LoadConfig{Rate: 1000}, start)
	var last job
	spans := 0
	for range 1000 { // always asked late, never more than the burst
		j, ok, err := s.next(last.due.Add(300 * time.Millisecond))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 100, j.spans())
		last = j
		spans += j.spans()
	}
	require.WithinDuration(t, start.Add(time.Duration(spans-100)*time.Millisecond), last.due, time.Millisecond)

	late := last.due.Add(time.Minute) // the server hung for a minute
	burst := 0
	for j := last; !j.due.After(late); burst += j.spans() {
		j, _, _ = s.next(late)
	}
	require.InDelta(t, 1000, burst, 201)
}

func TestLowRatesAreCutIntoSmallRequests(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64]int{1: 2, 10: 2, 100: 10, 1000: 100, 100_000: 100} {
		j, ok, err := scheduleOf(t, LoadConfig{Rate: rate}, time.Now()).next(time.Now())
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, want, j.spans(), "rate %v", rate)
	}
}

func TestBlocksAreHandedOutWhole(t *testing.T) {
	t.Parallel()
	start := time.Now()
	s := scheduleOf(t, LoadConfig{Duration: time.Second}, start)
	_, ok, err := s.next(start)
	require.True(t, ok)
	require.NoError(t, err)
	for range 4 {
		j, ok, _ := s.next(start.Add(time.Hour))
		require.True(t, ok)
		require.Equal(t, 0, j.firstTrace)
	}
	_, ok, err = s.next(start.Add(time.Hour))
	require.False(t, ok)
	require.NoError(t, err)
}

func TestNumbersRunOut(t *testing.T) {
	t.Parallel()
	s := scheduleOf(t, LoadConfig{FirstTrace: maxTraces(10) - 1}, time.Now())
	for range 5 {
		j, ok, err := s.next(time.Now())
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 1, j.traces)
	}
	_, ok, err := s.next(time.Now())
	require.False(t, ok)
	require.ErrorIs(t, err, ErrNumbersUsedUp)
}

// Every trace is a tree with one root, children lie within their parents, and times and status fit the kind.
func TestTracesAreWellFormed(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]LoadConfig{
		"default": {}, "one service": {Services: 1}, "one span each": {Services: 10}, "uneven": {Services: 3, SpansPerTrace: 17},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Traces, cfg.SlowRatio, cfg.ErrorRatio, cfg.Run = 200, 0.3, 0.3, "0badcafe"
			filled := cfg.withDefaults()
			g, s := newGenerator(filled), newSchedule(filled, time.Now())
			traces := map[pcommon.TraceID]map[pcommon.SpanID]ptrace.Span{}
			for {
				j, ok, err := s.next(time.Now())
				require.NoError(t, err)
				if !ok {
					break
				}
				collect(traces, g.traces(&j))
			}
			require.Len(t, traces, 200)
			for number := range 200 {
				spans := traces[pcommon.TraceID(TraceIDOf("0badcafe", number))]
				require.Len(t, spans, filled.SpansPerTrace)
				checkTrace(t, spans, KindOf("0badcafe", number, 0.3, 0.3))
			}
		})
	}
}

func collect(into map[pcommon.TraceID]map[pcommon.SpanID]ptrace.Span, td ptrace.Traces) {
	for _, rs := range td.ResourceSpans().All() {
		for _, span := range rs.ScopeSpans().At(0).Spans().All() {
			if into[span.TraceID()] == nil {
				into[span.TraceID()] = map[pcommon.SpanID]ptrace.Span{}
			}
			into[span.TraceID()][span.SpanID()] = span
		}
	}
}

func checkTrace(t *testing.T, spans map[pcommon.SpanID]ptrace.Span, kind string) {
	t.Helper()
	roots, errors := 0, 0
	for _, span := range spans {
		value, _ := span.Attributes().Get(AttributeKind)
		require.Equal(t, kind, value.Str())
		require.LessOrEqual(t, span.StartTimestamp(), span.EndTimestamp())
		if span.Status().Code() == ptrace.StatusCodeError {
			errors++
		}
		if span.ParentSpanID().IsEmpty() {
			roots++
			checkRoot(t, span, kind)
			continue
		}
		parent, ok := spans[span.ParentSpanID()]
		require.True(t, ok)
		require.GreaterOrEqual(t, span.StartTimestamp(), parent.StartTimestamp())
		require.LessOrEqual(t, span.EndTimestamp(), parent.EndTimestamp())
	}
	require.Equal(t, 1, roots)
	require.Equal(t, kind == KindError, errors == 1)
	require.LessOrEqual(t, errors, 1)
}

func checkRoot(t *testing.T, root ptrace.Span, kind string) {
	t.Helper()
	require.Equal(t, ptrace.SpanKindServer, root.Kind())
	took := root.EndTimestamp().AsTime().Sub(root.StartTimestamp().AsTime())
	switch kind {
	case KindFast:
		require.Less(t, took, 300*time.Millisecond)
	case KindSlow:
		require.GreaterOrEqual(t, took, 700*time.Millisecond)
	}
	require.GreaterOrEqual(t, took, 5*time.Millisecond)
	require.Less(t, took, 1500*time.Millisecond)
	require.WithinDuration(t, time.Now(), root.EndTimestamp().AsTime(), 10*time.Second)
}

func TestPercentiles(t *testing.T) {
	t.Parallel()
	var l latencies
	require.Equal(t, Percentiles{}, l.percentiles())
	for ms := 1; ms <= 1000; ms++ {
		l.add(time.Duration(ms) * time.Millisecond)
	}
	got := l.percentiles()
	for want, p := range map[float64]float64{500: got.P50, 900: got.P90, 990: got.P99} {
		require.InEpsilon(t, want, p, 0.021)
	}
	require.Equal(t, 1000.0, got.Max)
	var one latencies
	one.add(0)
	one.add(-time.Second)
	one.add(1000 * time.Hour)
	require.Equal(t, milliseconds(1000*time.Hour), one.percentiles().Max)
}
