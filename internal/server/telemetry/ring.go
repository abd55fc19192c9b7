package telemetry

import (
	"math"
	"time"
)

// kind is what a series tells.
type kind int

const (
	accepted kind = iota
	refused
	sent
	failed
	dropped
	queue
	kinds
	rates = queue // those below are rates
)

// full is how many parts of a step cover it: 10 s, the interval of our agents, are 80.
const full = 240

// ring is the last hour in steps, numbered since 1970. A rate is kept as an amount and how much of the step it covers, so that
// collections of any interval come out right; a step that nothing covers is a gap.
type ring struct {
	amounts [rates][points]float32
	covered [rates][points]uint8 // in parts of a step
	waiting [points]float32      // NaN: not known
	until   [rates]int64         // up to when it is covered: the counters of one kind cover a time together, and once
	newestN int64                // the newest step there is
}

func (r *ring) init() {
	for i := range r.waiting {
		r.waiting[i] = float32(math.NaN())
	}
}

func stepOf(t time.Time) int64 { return t.Unix() / int64(Step/time.Second) }

// slot returns where the step is, and makes room for newer ones; false if it is too old.
func (r *ring) slot(step int64) (int, bool) {
	if step <= r.newestN-points || step < 0 {
		return 0, false
	}
	for n := max(r.newestN+1, step-points+1); n <= step; n++ {
		i := n % points
		for k := range r.amounts {
			r.amounts[k][i], r.covered[k][i] = 0, 0
		}
		r.waiting[i] = float32(math.NaN())
	}
	r.newestN = max(r.newestN, step)
	return int(step % points), true
}

// spread adds an amount that came about evenly between two times.
func (r *ring) spread(k kind, from, to time.Time, amount float64) {
	whole := to.Sub(from)
	if whole <= 0 {
		return
	}
	if oldest := to.Add(-forgetAfter); from.Before(oldest) {
		from, amount = oldest, amount*float64(forgetAfter)/float64(whole)
		whole = forgetAfter
	}
	for at := from; at.Before(to); {
		step := stepOf(at)
		next := time.Unix((step+1)*int64(Step/time.Second), 0)
		if next.After(to) {
			next = to
		}
		if i, ok := r.slot(step); ok {
			r.amounts[k][i] += float32(amount * float64(next.Sub(at)) / float64(whole))
			parts := math.Round(full * float64(next.UnixNano()-max(at.UnixNano(), r.until[k])) / float64(Step))
			r.covered[k][i] = uint8(min(full, float64(r.covered[k][i])+max(0, parts)))
		}
		at = next
	}
	r.until[k] = max(r.until[k], to.UnixNano())
}

// wait says how many items are waiting at a time.
func (r *ring) wait(at time.Time, items float64) {
	if i, ok := r.slot(stepOf(at)); ok {
		r.waiting[i] = float32(items)
	}
}

// at is the value of a step, NaN for a gap.
func (r *ring) at(k kind, step int64) float64 {
	if step > r.newestN || step <= r.newestN-points || step < 0 {
		return math.NaN()
	}
	i := step % points
	if k == queue {
		return float64(r.waiting[i])
	}
	if covered := r.covered[k][i]; covered > 0 {
		return float64(r.amounts[k][i]) / Step.Seconds() * full / float64(covered)
	}
	// A Collector makes the counters of what fails when it first does: where others were heard, silence is none.
	for _, covered := range r.covered {
		if covered[i] > 0 {
			return 0
		}
	}
	return math.NaN()
}

// last are the values of the steps before end; nil is a gap.
func (r *ring) last(k kind, end int64) []*float64 {
	values := make([]*float64, points)
	for i := range values {
		if v := r.at(k, end-points+int64(i)); !math.IsNaN(v) {
			values[i] = &v
		}
	}
	return values
}

// newest is the newest value of the last steps up to end, or 0.
func (r *ring) newest(k kind, end, steps int64) float64 {
	for n := end; n > end-steps; n-- {
		if v := r.at(k, n); !math.IsNaN(v) {
			return v
		}
	}
	return 0
}
