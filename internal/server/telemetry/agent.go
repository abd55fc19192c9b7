package telemetry

import "time"

const (
	// skew is by how much an agent's clock may differ from ours before it is not believed.
	skew = 2 * time.Minute
	// sameCollection is how far apart the parts of one collection can be.
	sameCollection = 2 * time.Second
	// youngest is the age of an agent whose first counters count from its start, and not only from then on.
	youngest = 2 * time.Minute
)

// agent is what is kept of one, below 4 KiB.
type agent struct {
	ring     ring
	counters [len(counters)]counter
	heard    time.Time // by our clock
	// seen is the time of the collection before the last, by the agent's clock, zero before the second; newest of the last.
	seen, newest int64
}

// counter is where a metric stood, summed over its attributes. Times are the agent's, in nanoseconds.
type counter struct {
	value       float64
	at, started int64
}

func newAgent() *agent {
	a := &agent{}
	a.ring.init()
	return a
}

// take adds a collection.
func (a *agent) take(c *collection, now time.Time) {
	a.heard = now
	if c.at > a.newest+int64(sameCollection) {
		a.seen, a.newest = a.newest, c.at
	}
	for i := range c.sums {
		if s := &c.sums[i]; s.points > 0 {
			if from, amount, ok := a.counters[i].advance(s, a.seen); ok {
				to := placed(s.at, now)
				a.ring.spread(counters[i].kind, to.Add(-time.Duration(s.at-from)), to, amount)
			}
		}
	}
	if c.queued {
		a.ring.wait(placed(c.at, now), c.queue)
	}
}

// placed is where a time of the agent lies by our clock. A clock that is wrong is replaced by the time of arrival.
func placed(at int64, now time.Time) time.Time {
	t := time.Unix(0, at)
	if t.After(now.Add(skew)) || t.Before(now.Add(-skew)) {
		return now
	}
	return t
}

// advance moves the counter on and returns what it has grown by, since when. A counter that was not there is one of:
// of an agent that has just started, which counts from its start; one that counted for the first time since the collection before
// (a Collector makes some of its counters when they are first needed); or of an agent that we did not know, of which only what
// follows counts.
func (c *counter) advance(s *sum, seen int64) (from int64, amount float64, ok bool) {
	if s.at <= c.at {
		return 0, 0, false // sent again
	}
	before := *c
	c.value, c.at, c.started = s.value, s.at, s.started
	from = max(before.at, s.started)
	switch {
	case s.delta:
		c.value = 0
		if from == 0 {
			from = seen
		}
		return from, s.value, from > 0
	case before.at == 0 && s.started > 0 && s.at-s.started <= int64(youngest):
		return s.started, s.value, true
	case before.at == 0:
		return seen, s.value, seen > 0
	case s.started > before.at: // the agent has started anew
		return s.started, s.value, true
	case s.value >= before.value:
		return before.at, s.value - before.value, true
	case s.started == 0: // it must have
		return before.at, s.value, true
	}
	return 0, 0, false // a part of it is gone: an attribute that is reported no more
}
