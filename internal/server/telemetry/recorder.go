// Package telemetry keeps what agents say of themselves: the Collector's own metrics, sent over OTLP/HTTP, as a ring of one hour
// per agent in memory. It knows neither who may send nor which agent an instance ID is; its caller does. It is no database: what a
// server forgets at its end comes back within an hour.
package telemetry

import (
	"sync"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
)

const (
	// Step is the distance of two points, and points is how many a series has.
	Step   = 30 * time.Second
	points = 120

	defaultMaxAgents = 10_000
	forgetAfter      = points * Step
	sweepEvery       = time.Minute
)

// Options of a Recorder. The zero value is good.
type Options struct {
	// MaxAgents is how many agents are kept, about 4 KiB each; those that come later are told that they are not. 0 is 10,000.
	MaxAgents int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Recorder keeps the series of agents. It is safe for concurrent use and has no goroutines.
type Recorder struct {
	maxAgents int
	now       func() time.Time
	turns     chan struct{} // of large requests

	mu     sync.Mutex // guards what follows
	agents map[string]*agent
	swept  time.Time
	counts Counts
}

// Counts are of requests and data points, since the start.
type Counts struct {
	// Requests were taken, Malformed were refused: too large, or not to be read.
	Requests, Malformed uint64
	// Unknown are data points of agents that nobody knows, and Surplus of those above Options.MaxAgents.
	Unknown, Surplus uint64
}

// Totals are over all agents.
type Totals struct {
	Counts
	// Agents have sent something within the last hour.
	Agents int
	// Rates are items per second in each agent's newest point of the last three minutes, and items waiting.
	Accepted, Refused, Sent, Failed, Dropped, Queue float64
}

// New makes a Recorder.
func New(o Options) *Recorder {
	if o.MaxAgents <= 0 {
		o.MaxAgents = defaultMaxAgents
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Recorder{maxAgents: o.MaxAgents, now: o.Now, turns: make(chan struct{}, turns), agents: map[string]*agent{}}
}

// Series is the last hour of an agent, up to the last full step before now; false if it has sent nothing in that time.
func (r *Recorder) Series(uid string, now time.Time) (apiv1.Series, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.agents[uid]
	if a == nil || now.Sub(a.heard) >= forgetAfter {
		return apiv1.Series{}, false
	}
	end := now.Truncate(Step).UTC()
	s := apiv1.Series{Interval: Step.String(), End: end}
	for k, into := range [kinds]*[]*float64{&s.Accepted, &s.Refused, &s.Sent, &s.Failed, &s.Dropped, &s.Queue} {
		*into = a.ring.last(kind(k), stepOf(end))
	}
	return s, true
}

// Totals adds up what all agents do.
func (r *Recorder) Totals() Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep()
	t := Totals{Counts: r.counts, Agents: len(r.agents)}
	end := stepOf(r.now())
	for k, into := range [kinds]*float64{&t.Accepted, &t.Refused, &t.Sent, &t.Failed, &t.Dropped, &t.Queue} {
		for _, a := range r.agents {
			*into += a.ring.newest(kind(k), end, 6)
		}
	}
	return t
}

// record takes the collections of a request whose agents are known, and returns how many data points it did not keep.
func (r *Recorder) record(collected []collection, uids []string) (unknown, surplus int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep()
	r.counts.Requests++
	now := r.now()
	for i := range collected {
		c, uid := &collected[i], uids[i]
		if uid == "" {
			unknown += c.points
			continue
		}
		a := r.agents[uid]
		if a == nil && len(r.agents) >= r.maxAgents {
			surplus += c.points
			continue
		}
		if a == nil {
			a = newAgent()
			r.agents[uid] = a
		}
		a.take(c, now)
	}
	r.counts.Unknown += uint64(unknown)
	r.counts.Surplus += uint64(surplus)
	return unknown, surplus
}

func (r *Recorder) malformed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.Malformed++
}

// sweep forgets those who have been silent. The caller holds the lock.
func (r *Recorder) sweep() {
	now := r.now()
	if now.Sub(r.swept) < sweepEvery {
		return
	}
	r.swept = now
	for uid, a := range r.agents {
		if now.Sub(a.heard) >= forgetAfter {
			delete(r.agents, uid)
		}
	}
}
