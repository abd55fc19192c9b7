package remote

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// on_failed_start: exit. A start that hangs ends the process, and the service manager finds the last good configuration.
func TestHangingStartEndsTheProcess(t *testing.T) {
	t.Parallel()
	for _, binary := range binaries {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			e := start(t, options{base: edited(t, "remote_config: {", "remote_config: {on_failed_start: exit, "), binary: harness.Binary(t, binary)})
			e.fleet.push("good", addAttribute)
			e.fleet.await(0, "good", "APPLIED")
			said := len(e.fleet.said())
			e.fleet.push("bad", unrulyProcessor("start", "hang"))
			require.Error(t, e.collector.Wait(20*time.Second))
			require.Contains(t, e.collector.Log(), "processor:unruly hangs while it starts")
			e.collector.Start()
			require.Contains(t, e.fleet.await(said, "bad", "FAILED").message, "start: not ready within 3s: processor:unruly hangs")
			e.requireWorks("attributes/test", "batch")
			e.collector.Stop()
		})
	}
}

// What runs does not end when another configuration is to take its place: that one is refused, and the good one runs again.
func TestConfigurationThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	for _, binary := range binaries {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			e := start(t, options{base: edited(t, "remote_config: {", "remote_config: {stop_timeout: 2s, "), binary: harness.Binary(t, binary)})
			pid := e.collector.PID()
			e.fleet.push("stays", unrulyProcessor("shutdown", "hang"))
			e.fleet.await(0, "stays", "APPLIED")
			e.fleet.push("other", addAttribute)
			failed := e.fleet.await(0, "other", "FAILED")
			require.Contains(t, failed.message, "start: the configuration before has not ended within 2s")
			e.collector.AwaitReady()
			e.requireWorks("unruly", "batch")
			require.Equal(t, pid, e.collector.PID())
			e.requireOnDisk("stays", "other", failed.message)
			e.collector.Kill() // it would not end otherwise
		})
	}
}

// A fatal error with on_failed_start: exit has an exit code that a service manager restarts.
func TestFatalErrorEndsTheStockProcess(t *testing.T) {
	t.Parallel()
	e := start(t, options{base: edited(t, "remote_config: {", "remote_config: {on_failed_start: exit, "), binary: harness.Binary(t, binaries[1])})
	e.fleet.push("bad", unrulyProcessor("ready", "fatal"))
	require.Error(t, e.collector.Wait(20*time.Second))
	e.collector.Start()
	require.Contains(t, e.fleet.await(0, "bad", "FAILED").message, "health: processor:unruly: unruly, as configured")
	e.requireWorks("batch")
	e.collector.Stop()
}

// accepts_remote_config: false in the local file: what was stored does not run, and nothing is announced.
func TestRemoteConfigurationIsSwitchedOff(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.awaitProcessors("attributes/test", "batch")

	off := edited(t, "    remote_config: {", "    capabilities: {accepts_remote_config: false}\n    remote_config: {")
	e.writeBase(off)
	e.awaitProcessors("batch")
	e.fleet.push("other", strings.ReplaceAll(addAttribute, "pushed", "other"))
	e.collector.Stop()
	seen := len(e.fleet.heard())
	e.collector.Start()
	e.requireWorks("batch")
	announced := e.fleet.heard()[seen:]
	require.NotEmpty(t, announced)
	for _, m := range announced {
		require.Zero(t, m.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig))
	}

	e.writeBase(base)
	e.awaitProcessors("attributes/test", "batch")
	e.collector.Stop()
}
