package telemetry

import (
	"fmt"
	"math"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// start is the beginning of a step.
var start = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

// rig is a recorder with a clock.
type rig struct {
	*testing.T
	*Recorder
	now time.Time
}

func newRig(t *testing.T, o Options) *rig {
	g := &rig{T: t, now: start}
	o.Now = func() time.Time { return g.now }
	g.Recorder = New(o)
	return g
}

// point is of one metric; began is when the agent started to count.
type point struct {
	name      string
	value     float64
	at, began time.Time
	delta     bool
	attribute string
}

func metrics(instance string, all ...point) pmetric.Metrics {
	m := pmetric.NewMetrics()
	resource := m.ResourceMetrics().AppendEmpty()
	resource.Resource().Attributes().PutStr("service.instance.id", instance)
	for _, p := range all {
		metric := resource.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		metric.SetName(p.name)
		var data pmetric.NumberDataPoint
		if p.name == queueSize {
			data = metric.SetEmptyGauge().DataPoints().AppendEmpty()
		} else {
			s := metric.SetEmptySum()
			s.SetIsMonotonic(true)
			s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			if p.delta {
				s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			}
			data = s.DataPoints().AppendEmpty()
		}
		data.SetDoubleValue(p.value)
		data.SetTimestamp(pcommon.NewTimestampFromTime(p.at))
		if !p.began.IsZero() {
			data.SetStartTimestamp(pcommon.NewTimestampFromTime(p.began))
		}
		data.Attributes().PutStr("receiver", p.attribute)
	}
	return m
}

// send sends from agent a, at the time of the last point.
func (g *rig) send(all ...point) {
	g.now = all[len(all)-1].at
	collected := collect(metrics("a", all...))
	unknown, surplus := g.record(collected, owners(collected, "a", nil))
	require.Zero(g, unknown+surplus)
}

// rates are the last values of a kind, NaN for gaps.
func (g *rig) rates(k kind, n int) []float64 {
	g.Helper()
	s, ok := g.Series("a", g.now)
	require.True(g, ok)
	require.Equal(g, "30s", s.Interval)
	all := [kinds][]*float64{s.Accepted, s.Refused, s.Sent, s.Failed, s.Dropped, s.Queue}[k]
	require.Len(g, all, points)
	values := make([]float64, n)
	for i, v := range all[points-n:] {
		if values[i] = math.NaN(); v != nil {
			values[i] = *v
		}
	}
	return values
}

func after(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

const (
	spans = "otelcol_receiver_accepted_spans"
	logs  = "otelcol_receiver_accepted_log_records"
)

func TestRates(t *testing.T) {
	t.Parallel()
	long := start.Add(-24 * time.Hour)
	gap := math.NaN()
	for name, c := range map[string]struct {
		sent []point
		kind kind
		want []float64
	}{
		"every 10 s":                          {[]point{{spans, 1000, after(0), long, false, ""}, {spans, 1100, after(10), long, false, ""}, {spans, 1200, after(20), long, false, ""}, {spans, 1300, after(30), long, false, ""}}, accepted, []float64{gap, 10}},
		"every 60 s":                          {[]point{{spans, 1000, after(0), long, false, ""}, {spans, 1600, after(60), long, false, ""}}, accepted, []float64{gap, 10, 10}},
		"across steps":                        {[]point{{spans, 0, after(0), long, false, ""}, {spans, 450, after(45), long, false, ""}, {spans, 900, after(90), long, false, ""}}, accepted, []float64{10, 10, 10}},
		"a young agent counts from its start": {[]point{{spans, 300, after(30), after(0), false, ""}}, accepted, []float64{10}},
		"an old one from then on":             {[]point{{spans, 300, after(30), long, false, ""}}, accepted, []float64{gap}},
		"a restart":                           {[]point{{spans, 1000, after(0), long, false, ""}, {spans, 300, after(60), after(30), false, ""}}, accepted, []float64{gap, 10}},
		"a restart that counts further":       {[]point{{spans, 100, after(0), long, false, ""}, {spans, 300, after(60), after(30), false, ""}}, accepted, []float64{gap, 10}},
		"a restart without a start":           {[]point{{spans, 1000, after(0), time.Time{}, false, ""}, {spans, 300, after(30), time.Time{}, false, ""}}, accepted, []float64{10}},
		"a series less is no restart":         {[]point{{spans, 1000, after(0), long, false, ""}, {spans, 900, after(30), long, false, ""}, {spans, 1200, after(60), long, false, ""}}, accepted, []float64{gap, 10}},
		"sent again":                          {[]point{{spans, 0, after(0), long, false, ""}, {spans, 300, after(30), long, false, ""}, {spans, 300, after(30), long, false, ""}}, accepted, []float64{10}},
		"delta":                               {[]point{{spans, 300, after(30), after(0), true, ""}, {spans, 300, after(30), after(0), true, ""}, {spans, 600, after(60), after(30), true, ""}}, accepted, []float64{10, 20}},
		"a suffix":                            {[]point{{spans + "_total", 0, after(0), long, false, ""}, {spans + "_total", 300, after(30), long, false, ""}}, accepted, []float64{10}},
		"negative":                            {[]point{{spans, -1, after(0), long, false, ""}, {spans, math.NaN(), after(30), long, false, ""}, {spans, math.Inf(1), after(30), long, false, ""}}, accepted, []float64{gap}},
		"queue":                               {[]point{{queueSize, 7, after(1), long, false, ""}, {queueSize, 9, after(29), long, false, ""}, {queueSize, 0, after(61), long, false, ""}}, queue, []float64{9, gap}},
		"unknown":                             {[]point{{"otelcol_process_uptime", 7, after(30), long, false, ""}}, accepted, []float64{gap}},
		"refused":                             {[]point{{"otelcol_receiver_failed_spans", 300, after(30), after(0), false, ""}}, refused, []float64{10}},
		"sent":                                {[]point{{"otelcol_exporter_sent_metric_points", 300, after(30), after(0), false, ""}}, sent, []float64{10}},
		"failed":                              {[]point{{"otelcol_exporter_send_failed_spans", 300, after(30), after(0), false, ""}}, failed, []float64{10}},
		"dropped":                             {[]point{{"otelcol_exporter_enqueue_failed_log_records", 300, after(30), after(0), false, ""}}, dropped, []float64{10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, Options{})
			for _, p := range c.sent {
				g.send(p)
			}
			for i, v := range g.rates(c.kind, len(c.want)) {
				if math.IsNaN(c.want[i]) {
					require.True(t, math.IsNaN(v), "%d: %v", i, v)
				} else {
					require.InDelta(t, c.want[i], v, 0.1, "%d", i)
				}
			}
		})
	}
}

func TestSums(t *testing.T) {
	t.Parallel()
	g := newRig(t, Options{})
	long := start.Add(-time.Hour)
	g.send(point{spans, 10, after(0), long, false, "otlp"}, point{spans, 20, after(0), long, false, "zipkin"}, point{logs, 0, after(0), long, false, ""},
		point{queueSize, 1, after(0), long, false, "a"}, point{queueSize, 2, after(0), long, false, "b"})
	g.send(point{spans, 160, after(30), long, false, "otlp"}, point{spans, 170, after(30), long, false, "zipkin"}, point{logs, 300, after(30), long, false, ""})
	require.InDelta(t, 20, g.rates(accepted, 1)[0], 0.1, "spans of both receivers, and logs")
	require.InDelta(t, 3, g.rates(queue, 1)[0], 0)
	require.Zero(t, g.rates(dropped, 1)[0], "nothing was said of it, and others were heard")
	require.True(t, math.IsNaN(g.rates(dropped, 2)[0]), "nobody was heard before")

	// A counter that is made when it is first needed.
	g.send(point{spans, 160, after(60), long, false, "otlp"}, point{spans, 170, after(60), long, false, "zipkin"},
		point{"otelcol_exporter_send_failed_spans", 90, after(60), long, false, ""})
	require.InDelta(t, 3, g.rates(failed, 1)[0], 0.1)
	totals := g.Totals()
	require.InDelta(t, 3, totals.Failed, 0.1)
	require.Equal(t, 1, totals.Agents)
	require.EqualValues(t, 3, totals.Requests)
}

// TestClocks: an agent whose clock is wrong has its points where they arrive.
func TestClocks(t *testing.T) {
	t.Parallel()
	for _, wrong := range []time.Duration{-100 * 24 * time.Hour, 24 * time.Hour} {
		g := newRig(t, Options{})
		for i := range 3 {
			collected := collect(metrics("a", point{spans, float64(300 * i), after(float64(30 * i)).Add(wrong), start.Add(-time.Hour).Add(wrong), false, ""}))
			g.now = after(float64(30 * i))
			g.record(collected, []string{"a"})
		}
		got := g.rates(accepted, 2)
		require.InDelta(t, 10, got[0], 0.1)
		require.InDelta(t, 10, got[1], 0.1)
	}
}

func TestAnHour(t *testing.T) {
	t.Parallel()
	g := newRig(t, Options{})
	long := start.Add(-24 * time.Hour)
	for i := range 400 {
		g.send(point{spans, float64(300 * i), after(float64(30 * i)), long, false, ""})
	}
	for i, v := range g.rates(accepted, points) {
		require.InDelta(t, 10, v, 0.1, "%d", i)
	}
	_, ok := g.Series("a", g.now.Add(time.Hour-time.Second))
	require.True(t, ok)
	_, ok = g.Series("a", g.now.Add(time.Hour))
	require.False(t, ok)
	_, ok = g.Series("b", g.now)
	require.False(t, ok)
	g.now = g.now.Add(2 * time.Hour)
	require.Zero(t, g.Totals().Agents)
	require.Empty(t, g.agents)
}

func TestBounds(t *testing.T) {
	t.Parallel()
	require.LessOrEqual(t, unsafe.Sizeof(agent{}), uintptr(4096))
	g := newRig(t, Options{MaxAgents: 2})
	for i := range 5 {
		collected := collect(metrics("", point{spans, 1, start, start, false, ""}))
		_, surplus := g.record(collected, []string{fmt.Sprint(i % 3)})
		require.Equal(t, i%3 == 2, surplus == 1)
	}
	require.Equal(t, 2, g.Totals().Agents)
	require.EqualValues(t, 1, g.Totals().Surplus)
}
