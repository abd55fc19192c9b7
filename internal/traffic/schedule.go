package traffic

import (
	"math"
	"sync"
	"time"
)

// maxCatchUp bounds the burst after a time in which the server was slower than the rate.
const maxCatchUp = time.Second

// requestsPerSecond is how many requests a low rate is cut into at least.
const requestsPerSecond = 10

// job is one request: the spans [fromSpan, toSpan) of each of the traces [firstTrace, firstTrace+traces).
type job struct {
	firstTrace, traces int
	service            int
	fromSpan, toSpan   int
	request            int       // number of the request, counted over the run
	due                time.Time // not to be sent before
	ended              time.Time // when the traces of its block end
}

func (j *job) spans() int { return j.traces * (j.toSpan - j.fromSpan) }

// schedule hands out the jobs of a run, block by block: a block is some traces, each of its requests one service of them.
// A block that was begun is handed out whole.
type schedule struct {
	rate          float64
	services      int
	spansPerTrace int
	blockTraces   int // traces per block
	chunk         int // spans of one trace per request at most
	deadline      time.Time

	mu        sync.Mutex // guards everything below
	nextTrace int
	endTrace  int
	limited   bool // endTrace was asked for, it is not the end of the numbers
	current   job  // the last job handed out; traces == 0 before the first block
	nextDue   time.Time
	requests  int
}

func newSchedule(cfg LoadConfig, start time.Time) *schedule {
	batch := cfg.BatchSize
	if cfg.Rate > 0 {
		batch = min(batch, int(math.Ceil(cfg.Rate/requestsPerSecond)))
	}
	perService := (cfg.SpansPerTrace + cfg.Services - 1) / cfg.Services
	s := &schedule{
		rate: cfg.Rate, services: cfg.Services, spansPerTrace: cfg.SpansPerTrace,
		blockTraces: max(1, batch/perService), chunk: min(perService, cfg.BatchSize),
		nextTrace: cfg.FirstTrace, endTrace: maxTraces(cfg.SpansPerTrace), nextDue: start,
	}
	if cfg.Traces > 0 {
		s.endTrace, s.limited = cfg.FirstTrace+cfg.Traces, true
	}
	if cfg.Duration > 0 {
		s.deadline = start.Add(cfg.Duration)
	}
	return s
}

// next hands out one job; ok is false when there are no more. The caller waits until the job is due.
func (s *schedule) next(now time.Time) (j job, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.peek(now)
	switch j = s.current; {
	case j.traces > 0 && j.toSpan < s.firstSpan(j.service+1):
		j.fromSpan = j.toSpan
	case j.traces > 0 && j.service+1 < s.services:
		j.service++
		j.fromSpan = s.firstSpan(j.service)
	case s.nextTrace >= s.endTrace:
		if !s.limited {
			err = ErrNumbersUsedUp
		}
		return job{}, false, err
	case !s.deadline.IsZero() && !due.Before(s.deadline):
		return job{}, false, nil
	default:
		j = job{firstTrace: s.nextTrace, traces: min(s.blockTraces, s.endTrace-s.nextTrace), ended: due}
		s.nextTrace += j.traces
	}
	j.toSpan = min(j.fromSpan+s.chunk, s.firstSpan(j.service+1))
	j.request, j.due = s.requests, due
	s.requests++
	s.advance(due, j.spans())
	s.current = j
	return j, true, nil
}

// firstSpan is the index of a service's first span in a trace: an even spread of the spans over the services.
func (s *schedule) firstSpan(service int) int { return service * s.spansPerTrace / s.services }

func (s *schedule) peek(now time.Time) time.Time {
	if s.rate <= 0 {
		return now
	}
	if oldest := now.Add(-maxCatchUp); s.nextDue.Before(oldest) {
		return oldest
	}
	return s.nextDue
}

// advance adds to the due time, never to the present time: the mean rate does not drift.
func (s *schedule) advance(due time.Time, spans int) {
	if s.rate > 0 {
		s.nextDue = due.Add(time.Duration(float64(spans) / s.rate * float64(time.Second)))
	}
}
