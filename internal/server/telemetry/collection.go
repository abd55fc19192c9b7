package telemetry

import (
	"math"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// counters are the Collector's counters by name. Collectors up to 0.110 count otelcol_processor_dropped_*; the failed of receivers
// are refused items by another name (feature gate receiverhelper.newReceiverMetrics). What a filter or a sampler leaves out is
// left out on purpose, and no loss.
var counters = [...]struct {
	name string
	kind kind
}{
	{"otelcol_receiver_accepted_spans", accepted},
	{"otelcol_receiver_accepted_metric_points", accepted},
	{"otelcol_receiver_accepted_log_records", accepted},
	{"otelcol_receiver_refused_spans", refused},
	{"otelcol_receiver_refused_metric_points", refused},
	{"otelcol_receiver_refused_log_records", refused},
	{"otelcol_receiver_failed_spans", refused},
	{"otelcol_receiver_failed_metric_points", refused},
	{"otelcol_receiver_failed_log_records", refused},
	{"otelcol_exporter_sent_spans", sent},
	{"otelcol_exporter_sent_metric_points", sent},
	{"otelcol_exporter_sent_log_records", sent},
	{"otelcol_exporter_send_failed_spans", failed},
	{"otelcol_exporter_send_failed_metric_points", failed},
	{"otelcol_exporter_send_failed_log_records", failed},
	{"otelcol_exporter_enqueue_failed_spans", dropped},
	{"otelcol_exporter_enqueue_failed_metric_points", dropped},
	{"otelcol_exporter_enqueue_failed_log_records", dropped},
	{"otelcol_processor_dropped_spans", dropped},
	{"otelcol_processor_dropped_metric_points", dropped},
	{"otelcol_processor_dropped_log_records", dropped},
}

const queueSize = "otelcol_exporter_queue_size"

var counterByName = func() map[string]int {
	m := make(map[string]int, len(counters))
	for i, c := range counters {
		m[c.name] = i
	}
	return m
}()

// collection is what one resource of a request says: one moment of one agent, as SDKs send it.
type collection struct {
	instance string // service.instance.id
	at       int64  // the latest time of it, in nanoseconds
	sums     [len(counters)]sum
	queue    float64
	queued   bool
	points   int64 // of all metrics, known or not
}

// sum is a counter over all its attributes.
type sum struct {
	value       float64
	at, started int64 // the latest and the earliest; started is 0 if any is not known
	delta       bool
	points      int
}

// collect reads a request.
func collect(m pmetric.Metrics) []collection {
	all := make([]collection, 0, m.ResourceMetrics().Len())
	for _, resource := range m.ResourceMetrics().All() {
		var c collection
		if id, ok := resource.Resource().Attributes().Get("service.instance.id"); ok {
			c.instance = id.AsString()
		}
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				c.add(metric)
			}
		}
		all = append(all, c)
	}
	return all
}

func (c *collection) add(metric pmetric.Metric) {
	var data pmetric.NumberDataPointSlice
	delta := false
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		data, delta = metric.Sum().DataPoints(), metric.Sum().AggregationTemporality() == pmetric.AggregationTemporalityDelta
	case pmetric.MetricTypeGauge:
		data = metric.Gauge().DataPoints()
	default:
		c.points++ // nobody asks for these; one each is near enough
		return
	}
	c.points += int64(data.Len())
	// Where metrics came by way of Prometheus, counters have a suffix.
	name := strings.TrimSuffix(metric.Name(), "_total")
	i, counts := counterByName[name]
	if !counts && name != queueSize || counts && metric.Type() != pmetric.MetricTypeSum {
		return
	}
	for _, p := range data.All() {
		value, at, ok := read(p)
		if !ok {
			continue
		}
		c.at = max(c.at, at)
		if counts {
			c.sums[i].add(value, at, started(p, at), delta)
		} else {
			c.queue, c.queued = c.queue+value, true
		}
	}
}

func (s *sum) add(value float64, at, started int64, delta bool) {
	s.value += value
	s.at = max(s.at, at)
	if s.points++; s.points == 1 || started < s.started {
		s.started = started
	}
	s.delta = delta
}

// believable is above any count; it leaves room for arithmetic in 32 bits.
const believable = 1e18

// read returns a point that can be believed.
func read(p pmetric.NumberDataPoint) (value float64, at int64, ok bool) {
	switch p.ValueType() {
	case pmetric.NumberDataPointValueTypeInt:
		value = float64(p.IntValue())
	case pmetric.NumberDataPointValueTypeDouble:
		value = p.DoubleValue()
	default:
		return 0, 0, false
	}
	at, ok = nanos(p.Timestamp())
	return value, at, ok && at > 0 && value >= 0 && value <= believable && !p.Flags().NoRecordedValue()
}

// started is 0 if it is not known.
func started(p pmetric.NumberDataPoint, at int64) int64 {
	if n, ok := nanos(p.StartTimestamp()); ok && n < at {
		return n
	}
	return 0
}

// nanos leaves room for arithmetic.
func nanos(t pcommon.Timestamp) (int64, bool) { return int64(t), t < math.MaxInt64/2 }
