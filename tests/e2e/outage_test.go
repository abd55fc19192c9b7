package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// The backend is away while traffic goes on. The gateway's queue fills and it refuses with a retryable code; the agent
// keeps what it has acknowledged on disk. When the backend is back, everything arrives.
func TestBackendAway(t *testing.T) {
	t.Parallel()
	const (
		outage        = 15 * time.Second
		rate          = 2000
		gatewayQueue  = "8000" // items: 4 s of the load
		memoryCeiling = 300 << 20
	)
	sink := harness.StartSink(t)
	gateway := harness.Start(t, harness.Options{
		Name: "gateway", Configs: []string{"gateway.yaml"},
		Env: map[string]string{"COLLIE_BACKEND_ENDPOINT": sink.GRPCEndpoint(), "COLLIE_QUEUE_ITEMS": gatewayQueue},
	})
	agent := harness.Start(t, harness.Options{
		Name: "agent", Configs: []string{"agent.yaml"},
		Env: map[string]string{"COLLIE_GATEWAY_ENDPOINT": gateway.GRPC()},
	})
	stop := harness.Background(t, traffic.LoadConfig{Endpoints: []string{agent.GRPC()}, Rate: rate})
	harness.Await(t, 20*time.Second, "spans at the sink", func() (bool, any) {
		n := sink.Summary().Spans
		return n > rate, n
	})

	require.NoError(t, sink.Shutdown(context.Background()))
	var highest int64
	for end := time.Now().Add(outage); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		highest = max(highest, agent.RSS(), gateway.RSS())
	}
	require.Less(t, highest, int64(memoryCeiling), "memory stays bounded while the data wait on disk")

	// The agent's large batches leave a small rest of the queue; small requests fill it up.
	filling := load(t, traffic.LoadConfig{Endpoints: []string{gateway.GRPC()}, Traces: 200})
	// With its queue full the gateway says in so many words that the sender shall try again.
	refused := load(t, traffic.LoadConfig{Endpoints: []string{gateway.GRPC()}, Traces: 100})
	require.Equal(t, refused.Sent, refused.Refused, "a full gateway acknowledges nothing")
	require.Equal(t, map[string]int64{"grpc Unavailable": refused.Requests}, refused.Errors)
	refusedHTTP := load(t, traffic.LoadConfig{Endpoints: []string{gateway.HTTP()}, Protocol: traffic.ProtocolHTTP, Traces: 100})
	require.Equal(t, map[string]int64{"http 503": refusedHTTP.Requests}, refusedHTTP.Errors)

	require.NoError(t, sink.Start(context.Background()))
	sum := stop()
	require.Equal(t, sum.Sent, sum.Acknowledged, "the agent took everything all the time: %v", sum.Errors)
	harness.AwaitAll(t, sink, sum, 90*time.Second)
	require.Zero(t, traffic.Missing(filling.AcknowledgedSet(), sink.Received(filling.Run)).GetCardinality(), "what the gateway took arrived, too")
	t.Logf("%v without a backend at %d spans/s: highest resident memory %d MB", outage, rate, highest>>20)
}
