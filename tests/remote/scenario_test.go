package remote

import (
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// An agent with [batch]; the server adds an attributes processor, then tail sampling. The process stays. So it does in a
// distribution of somebody else.
func TestAttributeThenTailSampling(t *testing.T) {
	t.Parallel()
	for _, binary := range []string{"otelcol-collie", "test/otelcol-thirdparty"} {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			testScenario(t, binary)
		})
	}
}

func testScenario(t testing.TB, binary string) {
	e := start(t, options{binary: harness.Binary(t, binary)})
	pid, began := e.collector.PID(), e.startTime()
	stop := e.load(traffic.LoadConfig{Rate: 500, SlowRatio: 0.2})

	e.fleet.push("attribute", addAttribute)
	e.fleet.await(0, "attribute", "APPLYING")
	e.fleet.await(0, "attribute", "APPLIED")
	harness.Await(t, 10*time.Second, "spans with the attribute", func() (bool, any) {
		attributes := e.sink.Summary().Attributes
		return attributes["pushed"]["yes"] > 0, attributes["pushed"]
	})

	e.fleet.push("slow", slowOnly)
	e.fleet.await(0, "slow", "APPLIED")
	e.awaitProcessors("tail_sampling", "batch")
	stop()

	e.sink.Reset()
	sum := e.run(traffic.LoadConfig{Rate: 1000, SlowRatio: 0.2, Duration: 2 * time.Second})
	harness.Await(t, 20*time.Second, "slow traces", func() (bool, any) {
		traces := e.sink.TraceSpans(sum.Run)
		return len(traces) > 0, len(traces)
	})
	for number := range e.sink.TraceSpans(sum.Run) {
		require.Equal(t, traffic.KindSlow, traffic.KindOf(sum.Run, int(number), 0.2, 0), "trace %d", number)
	}
	require.Equal(t, pid, e.collector.PID())
	require.Equal(t, began, e.startTime())

	e.fleet.push("bad", "receivers: [")
	e.fleet.await(0, "bad", "FAILED")
	metrics := e.metrics()
	require.Contains(t, metrics, `otelcol_opamp_remote_config_applied_total{result="applied"} 2`)
	require.Contains(t, metrics, `otelcol_opamp_remote_config_applied_total{result="failed"} 1`)
	took := regexp.MustCompile(`otelcol_opamp_remote_config_apply_duration_seconds ([0-9.e-]+)`).FindStringSubmatch(metrics)
	require.NotNil(t, took, metrics)
	seconds, err := strconv.ParseFloat(took[1], 64)
	require.NoError(t, err)
	require.Greater(t, seconds, 0.0)
	require.Less(t, seconds, 10.0)
	e.collector.Stop()
}
