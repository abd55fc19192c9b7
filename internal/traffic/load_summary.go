package traffic

import (
	"maps"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
)

// LoadSummary says what became of a run. Sent, Acknowledged, Refused, Failed and Retried count spans.
// Sent = Acknowledged + Refused + Failed: each span counts once, by how the last attempt to send it ended.
type LoadSummary struct {
	Run          string `json:"run"`
	Sent         int64  `json:"sent"`         // handed to the wire for the first time
	Acknowledged int64  `json:"acknowledged"` // the server answered that it has them
	Refused      int64  `json:"refused"`      // the server answered with an error, or with a partial success without them
	Failed       int64  `json:"failed"`       // no answer: no connection, a reset, or the timeout
	Retried      int64  `json:"retried"`      // handed to the wire again, each time counted
	Requests     int64  `json:"requests"`     // attempts, those sent again included
	// ElapsedSeconds is from the start of the run to the end of the last request.
	ElapsedSeconds float64 `json:"elapsed_seconds"`
	// SpansPerSecond is the mean rate of acknowledged spans.
	SpansPerSecond float64 `json:"spans_per_second"`
	// DurationMS is about acknowledged requests, in milliseconds.
	DurationMS Percentiles `json:"duration_ms"`
	// Errors are attempts by code: "grpc Unavailable", "http 503", "connect", "reset", "deadline".
	Errors map[string]int64 `json:"errors"`
	// LastError is the message of the last attempt that was refused or failed.
	LastError string `json:"last_error,omitempty"`
	// Traces are the traces that were begun, by kind.
	Traces map[string]int64 `json:"traces"`
	// AcknowledgedRanges are the sequence numbers of acknowledged spans, as inclusive ranges in ascending order. Requests that
	// were acknowledged in part are not in it: the server does not say which of their spans it took.
	AcknowledgedRanges [][2]uint32 `json:"acknowledged_ranges"`
}

// AcknowledgedSet is the set of sequence numbers in AcknowledgedRanges.
func (s LoadSummary) AcknowledgedSet() *roaring.Bitmap { return setOf(s.AcknowledgedRanges) }

// Progress is a look at a run that goes on; its fields are those of LoadSummary.
type Progress struct {
	Elapsed                                      time.Duration
	Sent, Acknowledged, Refused, Failed, Retried int64
}

// tally counts what happens in a run.
type tally struct {
	start time.Time
	seqs  int // spans per trace

	mu        sync.Mutex // guards everything below
	summary   LoadSummary
	latencies latencies
	acked     *roaring.Bitmap
}

func newTally(cfg LoadConfig, start time.Time) *tally {
	return &tally{
		start: start, seqs: cfg.SpansPerTrace, acked: roaring.New(),
		summary: LoadSummary{Run: cfg.Run, Errors: map[string]int64{}, Traces: map[string]int64{}},
	}
}

// begin counts the spans of a first attempt, and the traces that begin with it.
func (t *tally) begin(j *job, kinds map[string]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.summary.Sent += int64(j.spans())
	for kind, n := range kinds {
		t.summary.Traces[kind] += n
	}
}

func (t *tally) again(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.summary.Retried += int64(j.spans())
}

// attempt counts one request that ended.
func (t *tally) attempt(out outcome, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.summary.Requests++
	if out.code != "" {
		t.summary.Errors[out.code]++
	} else {
		t.latencies.add(took)
	}
	if out.message != "" {
		t.summary.LastError = out.message
	}
}

// end counts the spans of a job by its last outcome.
func (t *tally) end(j *job, out outcome) {
	spans := int64(j.spans())
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case out.code != "" && out.answered:
		t.summary.Refused += spans
	case out.code != "":
		t.summary.Failed += spans
	case out.rejected > 0:
		rejected := min(out.rejected, spans)
		t.summary.Refused += rejected
		t.summary.Acknowledged += spans - rejected
	default:
		t.summary.Acknowledged += spans
		for number := j.firstTrace; number < j.firstTrace+j.traces; number++ {
			first := uint64(number) * uint64(t.seqs)
			t.acked.AddRange(first+uint64(j.fromSpan), first+uint64(j.toSpan))
		}
	}
}

func (t *tally) progress() Progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.summary
	return Progress{
		Elapsed: time.Since(t.start), Sent: s.Sent, Acknowledged: s.Acknowledged, Refused: s.Refused, Failed: s.Failed, Retried: s.Retried,
	}
}

func (t *tally) result() LoadSummary {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.summary
	s.Errors, s.Traces = maps.Clone(s.Errors), maps.Clone(s.Traces)
	elapsed := time.Since(t.start).Seconds()
	s.ElapsedSeconds = elapsed
	if elapsed > 0 {
		s.SpansPerSecond = float64(s.Acknowledged) / elapsed
	}
	s.DurationMS = t.latencies.percentiles()
	s.AcknowledgedRanges = ranges(t.acked)
	return s
}
