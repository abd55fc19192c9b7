package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// SinkConfig says where a Sink listens and how badly it behaves.
type SinkConfig struct {
	// Listen is the host:port for OTLP gRPC; port 0 is a free one.
	Listen string
	// HTTPListen is the host:port for OTLP/HTTP. Empty is the port after Listen's, or a free one when that is 0.
	HTTPListen string
	// Delay is how long each request waits before it is answered.
	Delay time.Duration
	// FailRatio is the share of requests answered with a retryable error (gRPC Unavailable, HTTP 503). Nothing of them
	// counts as received.
	FailRatio float64
	// Logger gets what the receiver logs; nil is nothing.
	Logger *zap.Logger
}

// Validate reports all bad values at once, as joined *ConfigError.
func (c *SinkConfig) Validate() error {
	var errs []error
	for _, l := range []struct{ field, value string }{{"listen", c.Listen}, {"http-listen", c.HTTPListen}} {
		if l.field == "http-listen" && l.value == "" {
			continue
		}
		if err := checkListen(l.value); err != nil {
			errs = append(errs, &ConfigError{l.field, fmt.Sprintf("must be host:port, got %q: %v", l.value, err)})
		}
	}
	if c.HTTPListen == "" && portOf(c.Listen) == 65535 {
		errs = append(errs, &ConfigError{"http-listen", "must be set when listen has the last port, 65535"})
	}
	if c.Delay < 0 {
		errs = append(errs, &ConfigError{"delay", "must be 0 or more"})
	}
	if !(c.FailRatio >= 0 && c.FailRatio <= 1) {
		errs = append(errs, &ConfigError{"fail-ratio", fmt.Sprintf("must be from 0 to 1, got %v", c.FailRatio)})
	}
	return errors.Join(errs...)
}

func checkListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errors.New("the port must be a number from 0 to 65535")
	}
	return nil
}

// Sink receives OTLP traces, metrics and logs over gRPC and HTTP and counts them. Its memory is bounded, except for the
// sets of sequence numbers, which need about a bit per span. Create one with NewSink.
type Sink struct {
	cfg    SinkConfig
	ledger ledger

	lifecycle sync.Mutex          // serialises Start and Shutdown, guards the three fields below
	receiver  component.Component // nil unless running
	grpc      string
	http      string

	mu        sync.Mutex // guards the fields below
	delay     time.Duration
	failRatio float64
	stopping  chan struct{} // closed by Shutdown: requests stop waiting and are refused
}

// NewSink checks the configuration; it opens nothing.
func NewSink(cfg SinkConfig) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Sink{cfg: cfg, delay: cfg.Delay, failRatio: cfg.FailRatio}
	s.ledger.reset()
	return s, nil
}

// portAttempts is how many free ports are tried: another process may take one before the receiver does.
const portAttempts = 10

// Start opens both ports and returns when they accept requests. After Shutdown it can be started again, with its counts.
func (s *Sink) Start(ctx context.Context) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if s.receiver != nil {
		return errors.New("the sink is running: shut it down before it is started again")
	}
	s.mu.Lock()
	s.stopping = make(chan struct{})
	s.mu.Unlock()
	for attempt := 1; ; attempt++ {
		grpc, http, free, err := s.endpoints(ctx)
		if err != nil {
			return err
		}
		r, err := startReceiver(ctx, s, receiverConfig{grpc: grpc, http: http, logger: s.cfg.Logger})
		if err == nil {
			s.receiver, s.grpc, s.http = r, grpc, http
			return nil
		}
		if !free || attempt == portAttempts || !errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("listen on %s (gRPC) and %s (HTTP): %w", grpc, http, err)
		}
	}
}

// endpoints are the addresses to listen on; free says that at least one of them was picked and another may do as well.
func (s *Sink) endpoints(ctx context.Context) (grpc, http string, free bool, err error) {
	http = s.cfg.HTTPListen
	host, _, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil {
		return "", "", false, err
	}
	if http == "" {
		port := portOf(s.cfg.Listen)
		if port != 0 {
			port++
		}
		http = net.JoinHostPort(host, strconv.Itoa(port))
	}
	free = portOf(s.cfg.Listen) == 0 || portOf(http) == 0
	grpc, http, err = freePorts(ctx, s.cfg.Listen, http)
	return grpc, http, free, err
}

// freePorts replaces port 0 by a free port. Both are held until both are known, so that they differ.
func freePorts(ctx context.Context, addresses ...string) (grpc, http string, err error) {
	var listen net.ListenConfig
	for i, address := range addresses {
		if portOf(address) != 0 {
			continue
		}
		listener, err := listen.Listen(ctx, "tcp", address)
		if err != nil {
			return "", "", fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = listener.Close() }() // it was never used
		host, _, _ := net.SplitHostPort(address)
		addresses[i] = net.JoinHostPort(host, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	}
	return addresses[0], addresses[1], nil
}

// portOf is 0 when there is none.
func portOf(address string) int {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return n
}

// Shutdown answers the requests that wait with an error, closes the ports and waits for the receiver to end, or for the
// end of the context. It may be called without Start and more than once. The counts stay.
func (s *Sink) Shutdown(ctx context.Context) error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	if s.receiver == nil {
		return nil
	}
	s.mu.Lock()
	close(s.stopping)
	s.mu.Unlock()
	r := s.receiver
	s.receiver = nil
	// A client that is stuck can hold the gRPC server for seconds, and the receiver's Shutdown has no way out of that.
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("shut down sink: %w", ctx.Err())
	}
}

// GRPCEndpoint is the host:port of OTLP gRPC; empty before the first Start.
func (s *Sink) GRPCEndpoint() string {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	return s.grpc
}

// HTTPEndpoint is the host:port of OTLP/HTTP; empty before the first Start.
func (s *Sink) HTTPEndpoint() string {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	return s.http
}

// SetDelay changes how long the requests that arrive from now on wait.
func (s *Sink) SetDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// SetFailRatio changes the share of requests, from now on, that are answered with an error.
func (s *Sink) SetFailRatio(ratio float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failRatio = ratio
}

// Summary is what arrived since the start or the last Reset. Its cost does not depend on the number of spans.
func (s *Sink) Summary() SinkSummary { return s.ledger.summary() }

// Received is a copy of the set of sequence numbers received of a run.
func (s *Sink) Received(run string) *roaring.Bitmap { return s.ledger.received(run) }

// TraceSpans are the numbers of distinct spans received of a run, by trace number, for the traces of which any arrived.
func (s *Sink) TraceSpans(run string) map[uint32]int { return s.ledger.traceSpans(run) }

// Reset forgets everything that was counted.
func (s *Sink) Reset() { s.ledger.reset() }

// The sink is the consumer of the receiver. It reads and never keeps nor changes what it is given.
var (
	_ consumer.Traces  = (*Sink)(nil)
	_ consumer.Metrics = (*Sink)(nil)
	_ consumer.Logs    = (*Sink)(nil)
)

// Capabilities says that data are not changed.
func (s *Sink) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

// ConsumeTraces counts spans.
func (s *Sink) ConsumeTraces(ctx context.Context, td ptrace.Traces) error {
	return s.accept(ctx, func() { s.ledger.addTraces(td) })
}

// ConsumeMetrics counts data points.
func (s *Sink) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	return s.accept(ctx, func() { s.ledger.addMetrics(md) })
}

// ConsumeLogs counts log records.
func (s *Sink) ConsumeLogs(ctx context.Context, ld plog.Logs) error {
	return s.accept(ctx, func() { s.ledger.addLogs(ld) })
}

// accept waits, and then counts a request or refuses it.
func (s *Sink) accept(ctx context.Context, count func()) error {
	s.mu.Lock()
	delay, failRatio, stopping := s.delay, s.failRatio, s.stopping
	s.mu.Unlock()
	s.ledger.arrive()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done(): // the client has given up
			s.ledger.reject()
			return status.FromContextError(ctx.Err()).Err()
		case <-stopping:
			s.ledger.reject()
			return status.Error(codes.Unavailable, "the sink is shutting down")
		}
	}
	if failRatio > 0 && rand.Float64() < failRatio {
		s.ledger.reject()
		return status.Error(codes.Unavailable, "refused by the sink's fail ratio")
	}
	count()
	return nil
}
