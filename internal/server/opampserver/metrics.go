package opampserver

import "sync/atomic"

// Kind is what a message is about, for counting.
type Kind int

// The kinds of messages. A message counts once, as the first kind that fits.
const (
	KindMalformed Kind = iota // in: not readable; out: an error response
	KindDisconnect
	KindFull
	KindCustom
	KindStatus // in: any part of the state; out: any offer, flag or new UID
	KindCommand
	KindBare // in: a heartbeat; out: nothing but the answer
	kinds
)

func (k Kind) String() string {
	return [...]string{"malformed", "disconnect", "full", "custom", "status", "command", "bare"}[k]
}

// counters are written by all goroutines.
type counters struct {
	in, out           [kinds]atomic.Int64
	bytesIn, bytesOut atomic.Int64
	accepted, refused atomic.Int64
	dropped, gone     atomic.Int64
	duplicates, gaps  atomic.Int64
}

// Metrics is a snapshot of the counters; all but the first three only grow.
type Metrics struct {
	// Connections and Agents are now: WebSocket connections, and agents that are remembered. InFlight is in bytes.
	Connections, Agents int
	InFlight            int64
	// In and Out count messages by kind.
	In, Out map[Kind]int64
	// BytesIn and BytesOut count messages without compression and frames.
	BytesIn, BytesOut int64
	// Accepted and Refused count upgrades; Refused requests over HTTP too.
	Accepted, Refused int64
	// Dropped counts offers that could not be sent, Gone agents, Duplicates second agents under one UID, Gaps lost messages.
	Dropped, Gone, Duplicates, Gaps int64
}

// Metrics reads the counters.
func (s *Server) Metrics() Metrics {
	c := &s.counters
	m := Metrics{
		In: make(map[Kind]int64, kinds), Out: make(map[Kind]int64, kinds),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), Accepted: c.accepted.Load(), Refused: c.refused.Load(),
		Dropped: c.dropped.Load(), Gone: c.gone.Load(), Duplicates: c.duplicates.Load(), Gaps: c.gaps.Load(),
		InFlight: s.inFlight.Load(),
	}
	for k := range kinds {
		m.In[k], m.Out[k] = c.in[k].Load(), c.out[k].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.Connections, m.Agents = len(s.conns), len(s.agents)
	return m
}
