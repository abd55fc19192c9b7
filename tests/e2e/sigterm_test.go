package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// Each role is told to end by SIGTERM under load: it ends with exit code 0, soon, and what it had acknowledged has arrived.
// Roles with a queue on disk may deliver the rest after their next start.
func TestSIGTERMUnderLoad(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{
		"quickstart": false, "agent": true, "agent fast": true, "gateway": true, "single gateway": true, "sampler": true, "balancer": false,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc := topologies[name]
			sink := harness.StartSink(t)
			c := harness.Start(t, harness.Options{Configs: tc.configs, Env: tc.environment(sink)})
			stop := harness.Background(t, traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Rate: 3000})
			harness.Await(t, 30*time.Second, "spans at the sink", func() (bool, any) {
				n := sink.Summary().Spans
				return n > 3000, n
			})
			took := c.Stop()
			require.Less(t, took, 20*time.Second, "within the grace period of the shipped deployments")
			sum := stop()
			if restart {
				c.Start()
			}
			harness.AwaitAll(t, sink, sum, 30*time.Second)
		})
	}
}
