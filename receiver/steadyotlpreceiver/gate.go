package steadyotlpreceiver

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	// holdFor is how long a request waits for the next generation: most clients give up after 10 s.
	holdFor = 5 * time.Second
	// maxHeld is how many requests of one receiver wait at a time; what that is in memory is in DESIGN.md.
	maxHeld = 2048
	// retryAfter is what a client is told that is not served.
	retryAfter = time.Second
)

// gate holds requests while no generation serves them. Its states are in DESIGN.md.
type gate struct {
	holdFor time.Duration
	maxHeld int

	mu       sync.Mutex    // guards what follows
	open     *generation   // nil while the gate is closed
	changed  chan struct{} // closed and made anew when held requests shall look again
	ended    bool          // the gate will not open any more
	held     int           // requests that wait
	inFlight int           // requests within a generation
	idle     chan struct{} // set while close waits for inFlight to become 0
}

func newGate() *gate {
	return &gate{holdFor: holdFor, maxHeld: maxHeld, changed: make(chan struct{})}
}

// pass waits until a generation serves, and returns it. It may be gone when the caller uses it.
func (g *gate) pass(ctx context.Context) (*generation, error) { return g.await(ctx, 0) }

// enter waits until a generation serves, which then stays until leave.
func (g *gate) enter(ctx context.Context) (*generation, error) { return g.await(ctx, 1) }

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if g.inFlight == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

func (g *gate) await(ctx context.Context, count int) (*generation, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		if err := g.hold(ctx); err != nil {
			return nil, err
		}
	}
	g.inFlight += count
	return g.open, nil
}

// hold returns nil when the gate is open, with mu held, which it gives away while it waits.
func (g *gate) hold(ctx context.Context) error {
	if g.held >= g.maxHeld {
		return refused("too many requests wait for the new configuration")
	}
	g.held++
	defer func() { g.held-- }()
	limit := time.NewTimer(g.holdFor)
	defer limit.Stop()
	for g.open == nil && !g.ended {
		if err := g.look(ctx, limit.C); err != nil {
			return err
		}
	}
	if g.open == nil {
		return refused("the receiver is replaced or gone")
	}
	return nil
}

// look waits for a change, without mu.
func (g *gate) look(ctx context.Context, limit <-chan time.Time) error {
	changed := g.changed
	g.mu.Unlock()
	defer g.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-limit:
		return refused("no configuration has been started in time")
	case <-ctx.Done(): // the client is gone
		return status.FromContextError(ctx.Err()).Err()
	}
}

// close holds new requests, and waits for those within the generation.
func (g *gate) close(ctx context.Context) error {
	g.mu.Lock()
	g.open = nil
	var idle chan struct{}
	if g.inFlight > 0 {
		idle = make(chan struct{})
		g.idle = idle
	}
	g.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for requests in flight: %w", ctx.Err())
	}
}

// serve lets all requests to the generation.
func (g *gate) serve(gen *generation) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = gen
	g.wake()
}

// end answers all that wait, and all that come: nobody will serve them.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.wake()
}

func (g *gate) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// refused is an error that has any OTLP client try again.
func refused(why string) error {
	s, err := status.New(codes.Unavailable, why).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	if err != nil {
		return status.Error(codes.Unavailable, why)
	}
	return s.Err()
}
