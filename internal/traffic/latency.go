package traffic

import (
	"math"
	"time"
)

// Percentiles are durations in milliseconds. P50, P90 and P99 are exact to 2 %, Max is exact.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

const (
	// latencyGrowth is the ratio of neighbouring bucket bounds, which start at one microsecond: 2 % precision.
	latencyGrowth  = 1.04
	latencyBuckets = 640 // up to 22 hours
)

// latencies counts durations in buckets that grow: a run of any length needs the same memory.
type latencies struct {
	counts [latencyBuckets]int64
	total  int64
	max    time.Duration
}

func (l *latencies) add(d time.Duration) {
	micros := max(1, float64(d)/float64(time.Microsecond))
	bucket := int(math.Log(micros) / math.Log(latencyGrowth))
	l.counts[min(bucket, latencyBuckets-1)]++
	l.total++
	l.max = max(l.max, d)
}

func (l *latencies) percentiles() Percentiles {
	return Percentiles{P50: l.quantile(0.50), P90: l.quantile(0.90), P99: l.quantile(0.99), Max: milliseconds(l.max)}
}

// quantile is the middle of the bucket that holds it, and never more than the maximum.
func (l *latencies) quantile(q float64) float64 {
	if l.total == 0 {
		return 0
	}
	rank := int64(math.Ceil(q * float64(l.total)))
	for bucket, count := range l.counts {
		if rank -= count; rank <= 0 {
			return min(math.Pow(latencyGrowth, float64(bucket)+0.5)/1000, milliseconds(l.max))
		}
	}
	return milliseconds(l.max)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
