package opampserver

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"golang.org/x/time/rate"
)

// Server is the http.Handler for Path, on both transports. The http.Server around it bounds how long headers may take to arrive.
type Server struct {
	fleet Fleet
	log   *slog.Logger
	opts  Options

	limiter    *rate.Limiter
	handshakes chan struct{} // one for each upgrade under way
	waiting    chan struct{} // one for each upgrade that waits for that
	requests   chan struct{} // one for each HTTP request under way
	decoding   chan struct{} // one for each large message that is being decoded
	pings      chan struct{} // one for each ping under way
	inFlight   atomic.Int64  // bytes of large messages that are being received
	counters   counters
	announced  atomic.Pointer[announcement]

	stop chan struct{}  // closed by the first Shutdown
	wg   sync.WaitGroup // the sweeper, and all goroutines of connections

	mu       sync.Mutex // guards all below; held for moments, last of all locks
	closing  bool
	agents   map[uuid.UUID]*agent
	conns    map[*conn]struct{}
	assigned map[uuid.UUID]assignment // UIDs given away and not used yet
}

// announcement is what agents are told of the server.
type announcement struct {
	version      uint32
	capabilities uint64
	custom       []string
}

// assignment is why a UID was given away.
type assignment struct {
	by        uuid.UUID // the UID before
	duplicate bool      // of another agent that keeps it
}

// New makes a Server; Shutdown ends it.
func New(fleet Fleet, log *slog.Logger, opts Options) *Server {
	opts = opts.withDefaults()
	s := &Server{
		fleet: fleet, log: log, opts: opts,
		limiter:    rate.NewLimiter(rate.Limit(opts.AcceptRate), opts.AcceptBurst),
		handshakes: make(chan struct{}, opts.MaxHandshakes), waiting: make(chan struct{}, opts.MaxWaiting), requests: make(chan struct{}, opts.MaxRequests),
		decoding: make(chan struct{}, 2), pings: make(chan struct{}, 256), stop: make(chan struct{}),
		agents: map[uuid.UUID]*agent{}, conns: map[*conn]struct{}{}, assigned: map[uuid.UUID]assignment{},
	}
	s.SetCapabilities(opts.Capabilities, opts.CustomCapabilities)
	s.wg.Go(s.sweep)
	return s
}

// SetCapabilities changes what the server can do; every agent is told with the next message to it.
func (s *Server) SetCapabilities(capabilities uint64, custom []string) {
	next := &announcement{capabilities: capabilities | uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus), custom: slices.Clone(custom)}
	for {
		old := s.announced.Load()
		if old != nil {
			next.version = old.version
		}
		next.version++
		if s.announced.CompareAndSwap(old, next) {
			return
		}
	}
}

// Push sends an offer: now over WebSocket, with the next answer over HTTP, where a newer offer takes the place of one that waits.
// It does not wait for the agent. All of it is sent, or, with an error, nothing.
func (s *Server) Push(uid uuid.UUID, offer *Offer) error {
	a := s.find(uid)
	if a == nil {
		return ErrUnknownAgent
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.online {
		return ErrOffline
	}
	out, err := offer.without(s.terms(a))
	if err != nil {
		return err
	}
	if a.conn == nil {
		return a.wait(out)
	}
	frames, err := s.frames(a, &out)
	if err != nil {
		return err
	}
	s.assign(a, &out)
	if err := a.conn.push(frames); err != nil {
		return err
	}
	s.noteSent(a, &out)
	return nil
}

// frames are the messages of an offer, the command in one of its own. The caller holds a.mu.
func (s *Server) frames(a *agent, o *Offer) ([][]byte, error) {
	var frames [][]byte
	add := func(m *protobufs.ServerToAgent) error {
		if len(frames) == 0 {
			s.introduce(a, m)
		}
		m.InstanceUid = a.uid[:]
		frame, err := s.encode([]byte{0}, m)
		frames = append(frames, frame)
		return err
	}
	if !o.onlyRestart() {
		var m protobufs.ServerToAgent
		o.into(&m)
		if err := add(&m); err != nil {
			return nil, err
		}
	}
	if o.Restart {
		if err := add(restart()); err != nil {
			return nil, err
		}
	}
	return frames, nil
}

func restart() *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{Type: protobufs.CommandType_CommandType_Restart}}
}

// Forget drops what is remembered of an agent; if it is there, it is asked for everything with its next message.
func (s *Server) Forget(uid uuid.UUID) {
	if a := s.find(uid); a != nil {
		a.serial.Lock()
		defer a.serial.Unlock()
		s.remove(a, ReasonForgotten)
	}
}

func (s *Server) find(uid uuid.UUID) *agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agents[uid]
}

// Given says to which agent uid was given, while it is not used yet; zero if to none. A duplicate keeps the one it has, and another
// agent that speaks under it takes uid.
func (s *Server) Given(uid uuid.UUID) (to uuid.UUID, duplicate bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	given := s.assigned[uid]
	return given.by, given.duplicate
}

// Shutdown refuses what is new and closes all connections with Close frames, spread over Options.Drain, so that the agents do
// not come back all at once. When ctx ends first, the rest are cut off, and its error is returned. It may be called twice.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	if first {
		close(s.stop)
		s.closeInSlices(ctx, conns)
	}
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.raw.Close()
		}
		s.mu.Unlock()
		<-done
	}
	s.mu.Lock()
	agents := slices.Collect(maps.Values(s.agents))
	s.mu.Unlock()
	for _, a := range agents { // those over HTTP: the others went with their connections
		a.serial.Lock()
		s.offline(a, ReasonShutdown)
		a.serial.Unlock()
	}
	return err
}

// slice is the time between two groups of Close frames, on average.
const slice = 50 * time.Millisecond

func (s *Server) closeInSlices(ctx context.Context, conns []*conn) {
	window := s.opts.Drain
	if deadline, ok := ctx.Deadline(); ok {
		window = min(window, time.Until(deadline)/2)
	}
	rand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })
	slices := max(1, int(window/slice))
	size := max(1, (len(conns)+slices-1)/slices)
	for i, c := range conns {
		if i > 0 && i%size == 0 {
			select {
			case <-time.After(slice/2 + rand.N(slice)):
			case <-ctx.Done():
			}
		}
		c.fail(ReasonShutdown, statusGoingAway, "the server ends")
	}
}
