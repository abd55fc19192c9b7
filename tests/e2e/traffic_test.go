package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// startSink plays the backend on a port that stays the same when the sink is stopped and started again.
func startSink(t *testing.T) *traffic.Sink {
	t.Helper()
	s, err := traffic.NewSink(traffic.SinkConfig{
		Listen:     fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1")),
		HTTPListen: fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1")),
	})
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return s
}

// load runs the load to its end and requires that it sent something.
func load(t *testing.T, cfg traffic.LoadConfig) traffic.LoadSummary {
	t.Helper()
	sum, err := traffic.RunLoad(t.Context(), cfg)
	require.NoError(t, err)
	require.Positive(t, sum.Sent)
	return sum
}

// background runs the load until stop is called, which returns what became of it.
func background(t *testing.T, cfg traffic.LoadConfig) (stop func() traffic.LoadSummary) {
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

// awaitAll waits until everything acknowledged has arrived, and prints what it cost in duplicates.
func awaitAll(t *testing.T, sink *traffic.Sink, sum traffic.LoadSummary, limit time.Duration) {
	t.Helper()
	require.Positive(t, sum.Acknowledged)
	acked := sum.AcknowledgedSet()
	harness.Await(t, limit, "all acknowledged spans at the sink", func() (bool, any) {
		missing := traffic.Missing(acked, sink.Received(sum.Run)).GetCardinality()
		return missing == 0, fmt.Sprintf("%d of %d missing", missing, sum.Acknowledged)
	})
	t.Logf("%d spans sent, %d acknowledged, %d refused, %d failed, %d sent again; 0 missing, %d duplicates",
		sum.Sent, sum.Acknowledged, sum.Refused, sum.Failed, sum.Retried, sink.Summary().Runs[sum.Run].Duplicates)
}

// sendMetricAndLog sends one data point of the gauge "e2e.gauge" and one log record.
func sendMetricAndLog(t *testing.T, endpoint string) {
	t.Helper()
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()

	metrics := pmetric.NewMetrics()
	m := metrics.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("e2e.gauge")
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(42)
	_, err = pmetricotlp.NewGRPCClient(conn).Export(t.Context(), pmetricotlp.NewExportRequestFromMetrics(metrics))
	require.NoError(t, err)

	logs := plog.NewLogs()
	logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr("hello")
	_, err = plogotlp.NewGRPCClient(conn).Export(t.Context(), plogotlp.NewExportRequestFromLogs(logs))
	require.NoError(t, err)
}
