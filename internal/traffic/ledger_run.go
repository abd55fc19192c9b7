package traffic

import (
	"math"

	"github.com/RoaringBitmap/roaring/v2"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// runLedger is what arrived of one run.
type runLedger struct {
	name       string
	traceSpans uint32 // 0 when the spans do not say: then traces are not counted
	seen       *roaring.Bitmap
	duplicates int64
	traces     map[string]*TraceCount
}

func newRunLedger(name string, traceSpans int64) *runLedger {
	r := &runLedger{name: name, seen: roaring.New(), traces: map[string]*TraceCount{}}
	if traceSpans > 0 && traceSpans <= math.MaxUint32 {
		r.traceSpans = uint32(traceSpans)
	}
	return r
}

func (r *runLedger) add(number uint32, kind string) {
	if !r.seen.CheckedAdd(number) {
		r.duplicates++
		return
	}
	if r.traceSpans == 0 {
		return
	}
	first := uint64(number/r.traceSpans) * uint64(r.traceSpans)
	arrived := r.seen.CardinalityInRange(first, first+uint64(r.traceSpans))
	if arrived != 1 && arrived != uint64(r.traceSpans) {
		return
	}
	count := r.traceCount(kind)
	if arrived == 1 {
		count.Partial++
	}
	if arrived == uint64(r.traceSpans) {
		count.Partial--
		count.Whole++
	}
}

func (r *runLedger) traceCount(kind string) *TraceCount {
	count := r.traces[kind]
	if count == nil {
		if len(r.traces) >= maxKinds {
			kind = otherName
		}
		if count = r.traces[kind]; count == nil {
			count = &TraceCount{}
			r.traces[kind] = count
		}
	}
	return count
}

func (r *runLedger) summary() RunSummary {
	distinct := int64(r.seen.GetCardinality())
	s := RunSummary{Spans: distinct + r.duplicates, Distinct: distinct, Duplicates: r.duplicates, TraceSpans: int64(r.traceSpans)}
	if distinct > 0 {
		s.Missing = int64(r.seen.Maximum()) + 1 - distinct
	}
	return s
}

// measure is the number of data points of a metric and the sum described at MetricSummary.
func measure(metric pmetric.Metric) (points int64, sum float64) {
	switch metric.Type() {
	case pmetric.MetricTypeGauge:
		return numbers(metric.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		return numbers(metric.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		for _, point := range metric.Histogram().DataPoints().All() {
			points, sum = points+1, sum+float64(point.Count())
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, point := range metric.ExponentialHistogram().DataPoints().All() {
			points, sum = points+1, sum+float64(point.Count())
		}
	case pmetric.MetricTypeSummary:
		for _, point := range metric.Summary().DataPoints().All() {
			points, sum = points+1, sum+float64(point.Count())
		}
	}
	return points, sum
}

func numbers(slice pmetric.NumberDataPointSlice) (points int64, sum float64) {
	for _, point := range slice.All() {
		points++
		if point.ValueType() == pmetric.NumberDataPointValueTypeInt {
			sum += float64(point.IntValue())
		} else {
			sum += point.DoubleValue()
		}
	}
	return points, sum
}
