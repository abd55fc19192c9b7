package harness

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
)

// StartSink plays the backend on a port that stays the same when the sink is stopped and started again.
func StartSink(t testing.TB) *traffic.Sink {
	t.Helper()
	s, err := traffic.NewSink(traffic.SinkConfig{
		Listen:     fmt.Sprintf("127.0.0.1:%d", FreePort(t, "127.0.0.1")),
		HTTPListen: fmt.Sprintf("127.0.0.1:%d", FreePort(t, "127.0.0.1")),
	})
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return s
}

// Background runs the load until stop is called, which returns what became of it.
func Background(t testing.TB, cfg traffic.LoadConfig) (stop func() traffic.LoadSummary) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	type result struct {
		sum traffic.LoadSummary
		err error
	}
	done := make(chan result, 1)
	go func() {
		sum, err := traffic.RunLoad(ctx, cfg)
		done <- result{sum, err}
	}()
	t.Cleanup(cancel)
	return func() traffic.LoadSummary {
		t.Helper()
		cancel()
		r := <-done
		require.NoError(t, r.err)
		require.Positive(t, r.sum.Sent)
		return r.sum
	}
}

// AwaitAll waits until everything acknowledged has arrived, and prints what it cost in duplicates.
func AwaitAll(t testing.TB, sink *traffic.Sink, sum traffic.LoadSummary, limit time.Duration) {
	t.Helper()
	require.Positive(t, sum.Acknowledged)
	acked := sum.AcknowledgedSet()
	Await(t, limit, "all acknowledged spans at the sink", func() (bool, any) {
		missing := traffic.Missing(acked, sink.Received(sum.Run)).GetCardinality()
		return missing == 0, fmt.Sprintf("%d of %d missing", missing, sum.Acknowledged)
	})
	t.Logf("%d spans sent, %d acknowledged, %d refused, %d failed, %d sent again; 0 missing, %d duplicates",
		sum.Sent, sum.Acknowledged, sum.Refused, sum.Failed, sum.Retried, sink.Summary().Runs[sum.Run].Duplicates)
}
