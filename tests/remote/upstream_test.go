package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// The tests of this file are what the supervisor of the OpenTelemetry project, opampsupervisor v0.158.0, was seen to fail.

// opampsupervisor v0.158: APPLIED comes when config_apply_timeout ends, 5 s after the start, however soon the Collector was healthy.
func TestAppliedIsSaidAsSoonAsItIsTrue(t *testing.T) {
	t.Parallel()
	const soak, bound = 300 * time.Millisecond, 2 * time.Second
	e := start(t, options{})
	stop := e.load(traffic.LoadConfig{Rate: 500})
	for i, body := range []string{addAttribute, slowOnly, addAttribute, slowOnly, addAttribute} {
		hash := fmt.Sprint("good-", i)
		pushed := e.fleet.push(hash, body)
		took := e.fleet.await(0, hash, "APPLIED").at.Sub(pushed)
		t.Logf("APPLIED after %v", took.Round(time.Millisecond))
		require.Less(t, took, bound)
		require.GreaterOrEqual(t, took, soak, "APPLIED before the soak was over")
	}
	stop()
	e.collector.Stop()
}

// opampsupervisor v0.158: a crashing configuration that the server sends again is APPLIED.
func TestCrashingConfigurationIsNeverApplied(t *testing.T) {
	t.Parallel()
	for _, binary := range binaries {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			testCrashingConfiguration(t, binary)
		})
	}
}

func testCrashingConfiguration(t testing.TB, binary string) {
	e := start(t, options{panics: true, binary: harness.Binary(t, binary)})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	crash := unrulyProcessor("ready", "panic")
	e.fleet.always("crash", crash)
	e.fleet.push("crash", crash)
	require.Error(t, e.collector.Wait(20*time.Second), "the process survived a panic")

	for range 2 {
		at := e.mark()
		e.collector.Start()
		e.requireRefuses(at, "crash")
		e.fleet.push("crash", crash)
		e.requireWorks("attributes/test", "batch")
		e.collector.Stop()
	}
	e.collector.Start()
	at := e.mark()
	e.fleet.away()
	e.awaitLog(at.log, "The OpAMP server is not reachable")
	e.fleet.back()
	e.requireRefuses(at, "crash")
	e.requireWorks("attributes/test", "batch")
	for _, w := range e.fleet.said() {
		require.False(t, w.hash == "crash" && w.status == "APPLIED", "%+v", e.fleet.said())
	}
	require.Equal(t, 1, e.logged(0, logApply, `"crash"`), "it was tried again")
	e.collector.Stop()
}

// requireRefuses waits until the agent has refused a crashing configuration that was offered again.
func (e *env) requireRefuses(at mark, hash string) {
	e.t.Helper()
	failed := e.fleet.await(at.said, hash, "FAILED")
	require.True(e.t, strings.HasPrefix(failed.message, "crash: "), failed.message)
	e.awaitLog(at.log, logKnown)
	require.Equal(e.t, "FAILED", e.fleet.lastWord(at.said).status)
}

// opampsupervisor v0.158: it exits at every start until somebody deletes the stored file.
func TestStartsAfterAConfigurationThatIsNotYAML(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	for i, end := range []func(){func() { e.collector.Stop() }, e.collector.Kill} {
		hash := fmt.Sprint("not YAML ", i)
		e.fleet.push(hash, "receivers: [")
		failed := e.fleet.await(0, hash, "FAILED")
		end()
		e.fleet.awaitGone()
		said := len(e.fleet.said())
		e.collector.Start()
		require.Equal(t, failed.message, e.fleet.await(said, hash, "FAILED").message)
		e.requireWorks("attributes/test", "batch")
	}
	e.collector.Stop()
}

// opampsupervisor v0.158: without reports_remote_config there is no last working configuration, and so no way back.
func TestReturnsWithoutReportingRemoteConfig(t *testing.T) {
	t.Parallel()
	silent := strings.Replace(edited(t, "    remote_config: {", "    capabilities: {reports_remote_config: false}\n    remote_config: {"), "soak: 300ms", "soak: 1s", 1)
	e := start(t, options{base: silent, panics: true, binary: harness.Binary(t, "test/otelcol-unruly")})
	e.fleet.push("good", addAttribute)
	e.awaitLog(0, logGood)
	e.requireWorks("attributes/test", "batch")
	for _, bad := range []struct{ hash, body, stage string }{
		{"no start", unrulyProcessor("start", "error"), "start: "},
		{"unhealthy", unrulyProcessor("ready", "permanent"), "health: "},
		{"crash", unrulyProcessor("ready", "panic"), "crash: "},
	} {
		e.fleet.push(bad.hash, bad.body)
		if bad.hash == "crash" {
			require.Error(t, e.collector.Wait(20*time.Second), "the process survived a panic")
			e.fleet.awaitGone()
			e.collector.Start()
		}
		harness.Await(t, 20*time.Second, bad.hash+" in the state file", func() (bool, any) {
			s := e.state()
			return s.refused(bad.hash) && strings.HasPrefix(s.Status.Message, bad.stage), s
		})
		e.requireWorks("attributes/test", "batch")
		require.Equal(t, "good", e.state().Good.name())
	}
	require.Equal(t, 1, e.logged(0, "A configuration failed."))
	require.Equal(t, 1, e.logged(0, "The remote configuration is bad: the Collector returns to the one before."))
	for _, m := range e.fleet.heard() {
		require.Nil(t, m.RemoteConfigStatus)
		require.Zero(t, m.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig))
	}
	e.collector.Stop()
}

// opampsupervisor v0.158: APPLYING(B), FAILED(B), APPLIED(A), and B again: two restarts every 2.2 s, for ever.
func TestConfigurationThatIsOfferedAgainAndAgainDoesNotFlap(t *testing.T) {
	t.Parallel()
	const nagged, every, most = 10 * time.Second, 50 * time.Millisecond, 6
	e := start(t, options{binary: harness.Binary(t, "test/otelcol-unruly")})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	bad := unrulyProcessor("start", "error")
	e.fleet.always("bad", bad)
	e.fleet.nag(true)
	e.fleet.push("bad", bad)
	e.fleet.await(0, "bad", "FAILED")
	e.awaitProcessors("attributes/test", "batch")
	e.fleet.awaitHealth("healthy", (*protobufs.ComponentHealth).GetHealthy)
	stop := e.load(traffic.LoadConfig{Rate: 500})

	at, heard, written := e.mark(), len(e.fleet.heard()), e.written()
	for until := time.Now().Add(nagged); time.Now().Before(until); {
		e.fleet.push("bad", bad)
		time.Sleep(every) // the pace of the server
	}
	sum := stop()
	require.Equal(t, written, e.written(), "the state file was written again")
	e.fleet.nag(false)
	e.fleet.push("also bad", "receivers: [") // what was sent before has been seen when this is answered
	e.fleet.await(at.said, "also bad", "FAILED")

	require.Equal(t, sum.Sent, sum.Acknowledged)
	require.Zero(t, e.logged(at.log, logReload), "the service was reloaded")
	require.Positive(t, e.logged(at.log, logKnown))
	for _, w := range e.fleet.said()[at.said:] {
		require.Equal(t, "FAILED", w.status)
	}
	messages := e.fleet.heard()[heard:]
	t.Logf("%d messages while the server offered the configuration %d times", len(messages), nagged/every)
	require.LessOrEqual(t, len(messages), most, "%v", messages)
	e.collector.Stop()
}

// opampsupervisor v0.158: a configuration that crashes after config_apply_timeout is the last working one, and crashes for ever.
func TestConfigurationThatKeepsCrashingIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, binary := range binaries {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			testCrashLoop(t, binary)
		})
	}
}

func testCrashLoop(t testing.TB, binary string) {
	e := start(t, options{panics: true, binary: harness.Binary(t, binary)})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.fleet.push("crash", unrulyProcessor("span", "panic"))
	e.fleet.await(0, "crash", "APPLIED") // there were no spans

	stop := e.load(traffic.LoadConfig{Rate: 100})
	var at mark
	for crash := 1; crash <= 3; crash++ {
		require.Error(t, e.collector.Wait(30*time.Second), "crash %d", crash)
		e.fleet.awaitGone()
		at = e.mark()
		e.collector.Launch()
	}
	failed := e.fleet.await(at.said, "crash", "FAILED")
	require.Equal(t, "crash: the process crashed, for the 3. time within 5m0s", failed.message)
	e.collector.AwaitReady()
	stop()
	e.requireWorks("attributes/test", "batch")
	e.fleet.push("crash", unrulyProcessor("span", "panic"))
	e.awaitLog(at.log, logKnown)
	e.requireWorks("attributes/test", "batch")
	e.requireOnDisk("good", "crash", failed.message)
	e.collector.Stop()
}

// One that was good and cannot be created any more is taken back too: after an upgrade, say, or without a file that it refers to.
func TestConfigurationThatCannotBeCreatedAnyMoreIsTakenBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		binary, do string
		deaths     int // until it is taken back
		says       string
	}{
		"our main, error":   {"test/otelcol-unruly", "error", 0, "crash: start: "},
		"our main, panic":   {"test/otelcol-unruly", "panic", 3, "crash: the process crashed, for the 3. time"},
		"stock main, error": {"test/otelcol-thirdparty", "error", 3, "crash: the process crashed, for the 3. time"},
		"stock main, panic": {"test/otelcol-thirdparty", "panic", 3, "crash: the process crashed, for the 3. time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			when := filepath.Join(t.TempDir(), "when")
			require.NoError(t, os.WriteFile(when, []byte("never"), 0o600))
			e := start(t, options{binary: harness.Binary(t, c.binary), panics: true})
			e.fleet.push("good", addAttribute)
			e.fleet.await(0, "good", "APPLIED")
			e.fleet.push("fails", unrulyProcessor("'${file:"+when+"}'", c.do))
			e.fleet.await(0, "fails", "APPLIED")
			e.collector.Stop()
			e.fleet.awaitGone()
			require.NoError(t, os.WriteFile(when, []byte("create"), 0o600))

			said := len(e.fleet.said())
			for range c.deaths {
				e.collector.Launch()
				require.Error(t, e.collector.Wait(20*time.Second))
			}
			e.collector.Start()
			failed := e.fleet.await(said, "fails", "FAILED")
			require.True(t, strings.HasPrefix(failed.message, c.says), failed.message)
			e.requireWorks("attributes/test", "batch")
			e.requireOnDisk("good", "fails", failed.message)
			e.collector.Stop()
		})
	}
}
