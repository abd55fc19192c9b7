package traffic

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// ledger counts what a Sink received. The lock is taken twice per request, never per span.
type ledger struct {
	mu         sync.Mutex // guards everything below
	totals     SinkSummary
	runs       map[string]*runLedger
	lastRun    *runLedger // most spans are of the same run as the span before
	services   map[string]int64
	attributes attributeTable
	metrics    map[string]*MetricSummary
	durations  []int64
	bounds     []time.Duration
}

func (l *ledger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals = SinkSummary{}
	l.runs, l.lastRun = map[string]*runLedger{}, nil
	l.services = map[string]int64{}
	l.attributes = attributeTable{}
	l.metrics = map[string]*MetricSummary{}
	l.bounds = nil
	for _, ms := range durationBounds() {
		l.bounds = append(l.bounds, time.Duration(ms*float64(time.Millisecond)))
	}
	l.durations = make([]int64, len(l.bounds)+1)
}

// arrive counts a request before it waits.
func (l *ledger) arrive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.Requests++
}

func (l *ledger) reject() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.Rejected++
}

func (l *ledger) addTraces(td ptrace.Traces) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rs := range td.ResourceSpans().All() {
		var spans int64
		for _, ss := range rs.ScopeSpans().All() {
			spans += int64(ss.Spans().Len())
			for _, span := range ss.Spans().All() {
				l.addSpan(span)
			}
		}
		l.addResource(rs.Resource().Attributes(), spans)
	}
}

// addResource counts the attributes of a resource once per span: they are the spans' too.
func (l *ledger) addResource(attributes pcommon.Map, spans int64) {
	if spans == 0 {
		return
	}
	l.totals.Spans += spans
	name := ""
	if value, ok := attributes.Get("service.name"); ok {
		name = value.AsString()
	}
	addBounded(l.services, name, spans, maxServices)
	for key, value := range attributes.All() {
		l.attributes.add(key, value, spans)
	}
}

// marks are the attributes by which a span is recognised.
type marks struct {
	run, kind  string
	seq        int64
	numbered   bool
	traceSpans int64
}

func (l *ledger) addSpan(span ptrace.Span) {
	duration := time.Duration(span.EndTimestamp()) - time.Duration(span.StartTimestamp())
	bucket, _ := slices.BinarySearch(l.bounds, duration)
	l.durations[bucket]++
	var m marks
	for key, value := range span.Attributes().All() {
		switch key {
		case AttributeSeq:
			m.seq, m.numbered = value.Int(), value.Type() == pcommon.ValueTypeInt
			continue
		case AttributeRun:
			m.run = value.Str()
		case AttributeKind:
			m.kind = value.Str()
		case AttributeTraceSpans:
			m.traceSpans = value.Int()
		}
		l.attributes.add(key, value, 1)
	}
	l.addNumber(&m)
}

func (l *ledger) addNumber(m *marks) {
	if m.run == "" || !m.numbered || m.seq < 0 || m.seq > roaring.MaxUint32 {
		l.totals.Unnumbered++
		return
	}
	if l.lastRun == nil || l.lastRun.name != m.run {
		run := l.runs[m.run]
		if run == nil {
			if len(l.runs) == maxRuns {
				l.totals.RunsOverflow++
				return
			}
			run = newRunLedger(strings.Clone(m.run), m.traceSpans)
			l.runs[run.name] = run
		}
		l.lastRun = run
	}
	l.lastRun.add(uint32(m.seq), m.kind)
}

func (l *ledger) addMetrics(md pmetric.Metrics) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, metric := range sm.Metrics().All() {
				l.addMetric(metric)
			}
		}
	}
}

func (l *ledger) addMetric(metric pmetric.Metric) {
	name := metric.Name()
	total := l.metrics[name]
	if total == nil {
		if len(l.metrics) >= maxMetrics {
			name = otherName
			total = l.metrics[name]
		}
		if total == nil {
			total = &MetricSummary{}
			l.metrics[strings.Clone(name)] = total
		}
	}
	points, sum := measure(metric)
	total.DataPoints += points
	total.Sum += sum
	l.totals.DataPoints += points
}

func (l *ledger) addLogs(ld plog.Logs) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.LogRecords += int64(ld.LogRecordCount())
}

func (l *ledger) summary() SinkSummary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.totals
	s.Runs = make(map[string]RunSummary, len(l.runs))
	s.Traces = map[string]TraceCount{}
	for name, run := range l.runs {
		r := run.summary()
		s.Runs[name] = r
		s.Distinct += r.Distinct
		s.Duplicates += r.Duplicates
		s.Missing += r.Missing
		for kind, count := range run.traces {
			total := s.Traces[kind]
			total.Whole += count.Whole
			total.Partial += count.Partial
			s.Traces[kind] = total
		}
	}
	s.Services = maps.Clone(l.services)
	s.Attributes = l.attributes.summary()
	s.Metrics = make(map[string]MetricSummary, len(l.metrics))
	for name, total := range l.metrics {
		s.Metrics[name] = *total
	}
	s.SpanDurationsMS = Histogram{Bounds: durationBounds(), Counts: slices.Clone(l.durations)}
	return s
}

func (l *ledger) received(run string) *roaring.Bitmap {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.runs[run]; r != nil {
		return r.seen.Clone()
	}
	return roaring.New()
}

func (l *ledger) traceSpans(run string) map[uint32]int {
	seen := l.received(run)
	l.mu.Lock()
	var spans uint32
	if r := l.runs[run]; r != nil {
		spans = r.traceSpans
	}
	l.mu.Unlock()
	out := map[uint32]int{}
	if spans == 0 {
		return out
	}
	seen.Iterate(func(number uint32) bool {
		out[number/spans]++
		return true
	})
	return out
}

// addBounded counts under "(other)" what would make a table larger than the bound.
func addBounded(table map[string]int64, key string, n int64, bound int) {
	if _, ok := table[key]; !ok {
		if len(table) >= bound {
			key = otherName
		}
		key = strings.Clone(key)
	}
	table[key] += n
}
