package steadyotlpreceiver

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

func requireRefused(t *testing.T, err error) {
	t.Helper()
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Len(t, status.Convert(err).Details(), 1)
	require.Equal(t, retryAfter, status.Convert(err).Details()[0].(*errdetails.RetryInfo).RetryDelay.AsDuration())
}

func TestGateGivesUpAfterTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, start := newGate(), time.Now()
		_, err := g.pass(t.Context())
		requireRefused(t, err)
		require.Equal(t, holdFor, time.Since(start))
		require.Zero(t, g.held)
	})
}

func TestGateServesTheGenerationThatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, gen := newGate(), &generation{}
		var waiting sync.WaitGroup
		for range 3 {
			waiting.Go(func() {
				got, err := g.enter(t.Context())
				require.NoError(t, err)
				require.Same(t, gen, got)
			})
		}
		synctest.Wait()
		require.Equal(t, 3, g.held)
		g.serve(gen)
		waiting.Wait()
		require.Equal(t, 3, g.inFlight)
		require.Zero(t, g.held)
	})
}

func TestGateHoldsSoManyAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.maxHeld = 2
		var waiting sync.WaitGroup
		for range 2 {
			waiting.Go(func() { _, _ = g.pass(t.Context()) })
		}
		synctest.Wait()
		start := time.Now()
		_, err := g.pass(t.Context())
		requireRefused(t, err)
		require.Zero(t, time.Since(start))
		g.end()
		waiting.Wait()
		_, err = g.pass(t.Context())
		requireRefused(t, err)
	})
}

func TestGateLetsGoOfClientsThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := g.pass(ctx)
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		require.Zero(t, g.held)
	})
}

func TestGateClosesWhenNobodyIsInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.serve(&generation{})
		for range 2 {
			_, err := g.enter(t.Context())
			require.NoError(t, err)
		}
		start := time.Now()
		for i := range 2 {
			time.AfterFunc(time.Duration(i+1)*time.Second, g.leave)
		}
		require.NoError(t, g.close(t.Context()))
		require.Equal(t, 2*time.Second, time.Since(start))

		g.serve(&generation{})
		_, err := g.enter(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, g.close(ctx), context.DeadlineExceeded)
		g.leave()
	})
}

var (
	begins = &stats.Begin{}
	call   = &grpc.UnaryServerInfo{FullMethod: "/opentelemetry.proto.collector.trace.v1.TraceService/Export"}
)

// The costs of a request that no reload concerns: what the gate adds to the call of the consumer.
func BenchmarkConsume(b *testing.B) {
	in := &inner{gate: newGate()}
	next := &sink{}
	in.gate.serve(&generation{consumers: consumers{traces: next}})
	td := ptrace.NewTraces()
	ctx := context.WithValue(b.Context(), ticketKey{}, &ticket{})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = next.ConsumeTraces(ctx, td)
		}
	})
	b.Run("gate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = in.ConsumeTraces(ctx, td)
		}
	})
	b.Run("gate and gRPC hooks", func(b *testing.B) {
		b.ReportAllocs()
		h := grpcHook{hook{in: in, auth: grpcAuth}}
		for b.Loop() {
			called := h.TagRPC(b.Context(), nil)
			h.HandleRPC(called, begins)
			_, _ = h.intercept(called, nil, call, func(ctx context.Context, _ any) (any, error) { return nil, in.ConsumeTraces(ctx, td) })
		}
	})
	b.Run("gate in parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = in.ConsumeTraces(ctx, td)
			}
		})
	})
}
