package remote

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// Two Collectors with the same components: one with otelcol-collie's main, one with the main that ocb generates.
var binaries = []string{"test/otelcol-unruly", "test/otelcol-thirdparty"}

func unrulyProcessor(on, do string) string {
	return fmt.Sprintf(`
processors: {unruly: {on: %s, do: %s, after: 50ms}}
service: {pipelines: {traces: {processors: [unruly, batch]}}}`, on, do)
}

func unrulyExtension(on, do string) string {
	return fmt.Sprintf(`
extensions: {unruly: {on: %s, do: %s}}
service: {extensions: [unruly]}`, on, do)
}

// aliasBomb expands to 10^9 entries.
func aliasBomb() string {
	b := strings.Builder{}
	b.WriteString("x0: &a0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "x%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return b.String()
}

// badConfig is a configuration that must not stay, and what the server is told of it.
type badConfig struct {
	name, body string
	says       []string // parts of the message, the stage first
	// untouched: what ran was not reloaded.
	untouched bool
	// dies: the process ends, and its service manager starts it again.
	dies bool
}

var badConfigs = []badConfig{
	{name: "not YAML", body: "receivers: [", says: []string{"merge: ", "line 1"}, untouched: true},
	{name: "not a map", body: "- a", says: []string{"merge: "}, untouched: true},
	{name: "unknown component", body: `processors: {no_such: {}}
service: {pipelines: {traces: {processors: [no_such]}}}`, says: []string{"dry run: ", "no_such"}, untouched: true},
	{name: "unknown key", body: "processors: {batch: {no_such_key: 1}}", says: []string{"dry run: ", "no_such_key"}, untouched: true},
	{name: "dangling reference", body: "service: {pipelines: {traces: {processors: [not_there]}}}", says: []string{"dry run: ", "not_there"}, untouched: true},
	{name: "refused by policy", body: "exporters: {nop: {}}", says: []string{"policy: ", "exporters::nop"}, untouched: true},
	{name: "processor whose create fails", body: unrulyProcessor("create", "error"), says: []string{"dry run: ", "unruly"}, untouched: true},
	{name: "processor whose create panics", body: unrulyProcessor("create", "panic"), says: []string{"dry run: ", "panic"}, untouched: true},
	{name: "extension whose create fails", body: unrulyExtension("create", "error"), says: []string{"dry run: ", "extensions::unruly"}, untouched: true},
	{name: "telemetry that fails", body: "service: {telemetry: {logs: {encoding: no_such}}}", says: []string{"dry run: ", "service::telemetry::logs", "no_such"}, untouched: true},
	{name: "too large", body: "# " + strings.Repeat("x", 10<<20), says: []string{"merge: ", "the limit is 4194304"}, untouched: true},
	{name: "large map", body: "processors:\n" + largeMap(10<<20), says: []string{"merge: ", "the limit is 4194304"}, untouched: true},
	{name: "alias bomb", body: aliasBomb(), says: []string{"merge: "}, untouched: true},
	{name: "port taken", body: `receivers: {otlp/second: {protocols: {grpc: {endpoint: "${env:TAKEN}"}}}}
service: {pipelines: {traces: {receivers: [otlp, otlp/second]}}}`, says: []string{"start: ", "otlp/second", "address already in use"}},
	{name: "processor whose start fails", body: unrulyProcessor("start", "error"), says: []string{"start: ", "unruly"}},
	{name: "extension whose start fails", body: unrulyExtension("start", "error"), says: []string{"start: "}},
	{name: "start hangs", body: unrulyProcessor("start", "hang"), says: []string{"start: ", "not ready within 3s"}},
	{name: "permanently unhealthy", body: unrulyProcessor("ready", "permanent"), says: []string{"health: ", "processor:unruly", "unruly, as configured"}},
	{name: "recoverable error that stays", body: unrulyProcessor("ready", "recoverable"), says: []string{"health: ", "processor:unruly", "for 2s"}},
	{name: "fatal error", body: unrulyProcessor("ready", "fatal"), says: []string{"health: ", "unruly, as configured"}},
	{name: "panic on the first span", body: unrulyProcessor("span", "panic"), says: []string{"crash: ", "ended"}, dies: true},
}

func largeMap(size int) string {
	line := "  batch/%07d: {timeout: 1s}\n"
	b := strings.Builder{}
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, line, i)
	}
	return b.String()
}

// policed is the base configuration with a local policy and a short patience.
func policed(t testing.TB) string {
	t.Helper()
	return edited(t, "    remote_config: {", "    health_grace_period: 2s\n    remote_config: {components_denied: {exporters: [nop]}, ")
}

// A bad configuration: the server is told which stage refused it and why, and the Collector runs what it ran before.
func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	for _, binary := range binaries {
		for _, c := range badConfigs {
			t.Run(filepath.Base(binary)+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				testBadConfig(t, binary, c)
			})
		}
	}
}

func testBadConfig(t testing.TB, binary string, c badConfig) {
	taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1")))
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	local := policed(t)
	if c.dies { // a client whose connection was refused comes back after a second
		local = strings.Replace(local, "soak: 300ms", "soak: 3s", 1)
	}
	e := start(t, options{base: local, panics: c.dies, binary: harness.Binary(t, binary), env: map[string]string{"TAKEN": taken.Addr().String()}})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	pid, began := e.collector.PID(), e.startTime()
	said, log := len(e.fleet.said()), len(e.collector.Log())

	stop := func() traffic.LoadSummary { return traffic.LoadSummary{} }
	if c.dies {
		stop = e.load(traffic.LoadConfig{Rate: 1000, BatchSize: 10})
		harness.Await(t, 10*time.Second, "traffic", func() (bool, any) { s := e.sink.Summary(); return s.Requests > 0, s.Requests })
	}
	pushed := e.fleet.push("bad", c.body)
	if c.dies {
		require.Error(t, e.collector.Wait(20*time.Second), "the process survived a panic")
		stop()
		e.collector.Start()
	}
	failed := e.fleet.await(said, "bad", "FAILED")
	for _, part := range c.says {
		require.Contains(t, failed.message, part)
	}
	require.True(t, strings.HasPrefix(failed.message, c.says[0]), failed.message)
	e.collector.AwaitReady()
	back := time.Since(pushed)
	e.requireWorks("attributes/test", "batch")
	t.Logf("FAILED after %v, traffic flows again at the latest after %v: %s", failed.at.Sub(pushed).Round(time.Millisecond), back.Round(time.Millisecond), failed.message)

	if c.untouched {
		require.NotContains(t, e.collector.Log()[log:], "Config updated", "the service was reloaded")
	}
	if !c.dies {
		require.Equal(t, pid, e.collector.PID())
		require.Equal(t, began, e.startTime(), "another process")
	}
	e.requireOnDisk("good", "bad", failed.message)

	// Offered again, it is refused at once, and nothing is reloaded. FAILED stays the last word on it.
	said, log = len(e.fleet.said()), len(e.collector.Log())
	e.fleet.push("bad", c.body)
	e.fleet.push("good", addAttribute)
	e.fleet.await(said, "good", "APPLIED")
	e.fleet.push("bad", c.body)
	again := e.fleet.await(said, "bad", "FAILED")
	require.Equal(t, failed.message, again.message)
	require.NotContains(t, e.collector.Log()[log:], "Config updated", "the service was reloaded for a configuration that is known to be bad")
	for _, w := range e.fleet.said()[said:] {
		require.NotEqual(t, "APPLYING", w.status)
	}
	e.collector.Stop()
}

// requireWorks sends spans and requires that they arrive through these processors.
func (e *env) requireWorks(processors ...any) {
	e.t.Helper()
	e.awaitProcessors(processors...)
	sum := e.run(traffic.LoadConfig{Rate: 500, Duration: 200 * time.Millisecond})
	require.Equal(e.t, sum.Sent, sum.Acknowledged, "refused %d, failed %d", sum.Refused, sum.Failed)
	e.awaitAll(sum)
}

// requireOnDisk looks at what a next process would find.
func (e *env) requireOnDisk(good, bad, message string) {
	e.t.Helper()
	p := e.state()
	require.Equal(e.t, good, string(p.Good.Hash))
	require.Nil(e.t, p.Trial)
	require.Equal(e.t, bad, string(p.Status.Hash))
	require.Equal(e.t, "FAILED", p.Status.Outcome)
	require.Equal(e.t, message, p.Status.Message)
	require.Equal(e.t, bad, string(p.Bad[0].Hash))
	require.True(e.t, p.Running)
}
