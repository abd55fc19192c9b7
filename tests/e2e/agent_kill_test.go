package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// The durable agent is killed with -9 three times under load. What it had acknowledged is on disk and arrives
// after the restart; the clients repeat what was in flight, so there may be duplicates.
func TestAgentKilled(t *testing.T) {
	t.Parallel()
	sink := harness.StartSink(t)
	sink.SetDelay(100 * time.Millisecond) // so that something waits in the queue whenever it is killed
	agent := harness.Start(t, harness.Options{
		Configs: []string{"agent.yaml"},
		Env:     map[string]string{"COLLIE_GATEWAY_ENDPOINT": sink.GRPCEndpoint()},
	})
	stop := harness.Background(t, traffic.LoadConfig{
		Endpoints: []string{agent.GRPC()}, Rate: 5000, Retry: true, Reconnect: 100 * time.Millisecond,
	})
	for range 3 {
		before := sink.Summary().Spans
		harness.Await(t, 30*time.Second, "spans at the sink", func() (bool, any) {
			n := sink.Summary().Spans
			return n > before+5000, n
		})
		agent.Kill()
		agent.Start()
	}
	sum := stop()
	require.Positive(t, sum.Retried, "the kills were felt")
	harness.AwaitAll(t, sink, sum, 60*time.Second)
}
