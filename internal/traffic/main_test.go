package traffic

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startSink runs a sink on free ports until the end of the test.
func startSink(t testing.TB, cfg SinkConfig) *Sink {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	s, err := NewSink(cfg)
	require.NoError(t, err)
	require.NoError(t, s.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, s.Shutdown(ctx))
	})
	return s
}

func endpointOf(s *Sink, protocol string) string {
	if protocol == ProtocolHTTP {
		return s.HTTPEndpoint()
	}
	return s.GRPCEndpoint()
}

func mustLoad(t testing.TB, cfg LoadConfig) LoadSummary {
	t.Helper()
	summary, err := RunLoad(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, summary.Sent, summary.Acknowledged+summary.Refused+summary.Failed, "%+v", summary)
	return summary
}
