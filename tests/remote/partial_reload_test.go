package remote

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// With the core's gate a configuration that changes receivers alone leaves the other components running. The core tells
// extensions nothing of it: the agent must not take it for a start that hangs, and must report what runs.
func TestPartialReload(t *testing.T) {
	t.Parallel()
	e := newEnv(t, options{args: []string{"--feature-gates=service.partialReload"}})
	e.collector.Start()
	pid := e.collector.PID()
	port := harness.FreePort(t, "127.0.0.1")
	stop := e.clients()
	e.fleet.push("receiver", fmt.Sprintf(`
receivers: {otlp/second: {protocols: {grpc: {endpoint: "127.0.0.1:%d"}}}}
service: {pipelines: {traces: {receivers: [otlp, otlp/second]}}}`, port))
	e.fleet.await(0, "receiver", "APPLIED")
	harness.Await(t, 20*time.Second, "the second receiver in the report", func() (bool, any) {
		got := e.running("service", "pipelines", "traces", "receivers")
		return fmt.Sprint(got) == "[otlp otlp/second]", got
	})
	require.Contains(t, e.collector.Log(), "performing partial receiver reload")
	require.NotContains(t, e.collector.Log(), "Config updated, restart service")

	e.fleet.push("without", "") // the receiver goes, and nothing starts
	e.fleet.await(0, "without", "APPLIED")
	harness.Await(t, 20*time.Second, "one receiver in the report", func() (bool, any) {
		got := e.running("service", "pipelines", "traces", "receivers")
		return fmt.Sprint(got) == "[otlp]", got
	})
	require.NotContains(t, e.collector.Log(), "Config updated, restart service")

	e.fleet.push("processor", addAttribute) // not receivers alone: a full reload
	e.fleet.await(0, "processor", "APPLIED")
	e.awaitProcessors("attributes/test", "batch")
	require.Contains(t, e.collector.Log(), "Config updated, restart service")
	e.requireNothingLost(stop())
	require.Equal(t, pid, e.collector.PID())
	e.collector.Stop()
}
