package remote

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// withLocal is the base configuration with a processor of its own.
func withLocal(t testing.TB) string {
	t.Helper()
	return replaceOnce(t, edited(t, "processors:\n", "processors:\n  attributes/local: {actions: [{key: local, value: \"yes\", action: upsert}]}\n"),
		"processors: [batch]", "processors: [attributes/local, batch]")
}

// badEdits are files that must not be run, and what is said of them.
func badEdits(t testing.TB) map[string]struct{ content, says string } {
	t.Helper()
	return map[string]struct{ content, says string }{
		"not YAML":          {"receivers: [", "yaml"},
		"empty":             {"", "the scheme opamp: needs"},
		"half":              {base[:strings.LastIndex(base, "  pipelines:")], "must have at least one"},
		"no agent":          {edited(t, "extensions: [health_check, opamp]", "extensions: [health_check]"), "the scheme opamp: needs"},
		"unknown component": {edited(t, "exporters: [otlp_grpc/backend]", "exporters: [otlp_grpc/backend, no_such]"), "no_such"},
		"unknown key":       {edited(t, "timeout: 50ms", "no_such_key: 1"), "no_such_key"},
		"agent's own part":  {edited(t, "soak: 300ms", "soak: -1s"), "soak"},
	}
}

// reloads are the ways in which a changed base file comes into force.
var reloads = map[string]struct {
	change func(content string) string // of a base configuration
	signal bool
}{
	"watched": {change: func(content string) string { return content }},
	"SIGHUP": {signal: true, change: func(content string) string {
		return strings.Replace(content, "remote_config: {", "remote_config: {watch_base: false, ", 1)
	}},
}

// edit changes the base file in one of the ways of reloads.
func (e *env) edit(way, content string) {
	e.t.Helper()
	r := reloads[way]
	e.writeBase(r.change(content))
	if r.signal {
		e.collector.Signal(syscall.SIGHUP)
	}
}

// A changed base file comes into force in the same process; remote configuration stays merged over it.
func TestEditedBaseFileIsApplied(t *testing.T) {
	t.Parallel()
	for way, r := range reloads {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			e := start(t, options{base: r.change(base)})
			pid, began := e.collector.PID(), e.startTime()
			e.edit(way, withLocal(t))
			e.requireWorks("attributes/local", "batch")
			e.fleet.push("good", addAttribute)
			e.fleet.await(0, "good", "APPLIED")
			e.requireWorks("attributes/test", "batch")
			require.NotNil(t, e.running("processors", "attributes/local"))

			e.edit(way, base) // the remote list of processors stays over the new base file
			harness.Await(t, 20*time.Second, "the new base file", func() (bool, any) {
				return e.running("processors", "attributes/local") == nil && e.running("processors", "batch") != nil, e.fleet.effectiveConfig()
			})
			e.requireWorks("attributes/test", "batch")
			require.Equal(t, pid, e.collector.PID())
			require.Equal(t, began, e.startTime())
			require.Equal(t, "good", e.state().Good.name())
			e.collector.Stop()
		})
	}
}

// A bad edit is refused, said in the log and in the health, and forgotten when the file is as it was, or good.
func TestBadEditOfTheBaseFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, bad := range badEdits(t) {
		t.Run("SIGHUP/"+name, func(t *testing.T) {
			t.Parallel()
			testBadEdit(t, "SIGHUP", bad.content, bad.says)
		})
	}
	for _, name := range []string{"not YAML", "unknown key", "no agent"} { // it takes seconds until the file is looked at
		bad := badEdits(t)[name]
		t.Run("watched/"+name, func(t *testing.T) {
			t.Parallel()
			testBadEdit(t, "watched", bad.content, bad.says)
		})
	}
}

func testBadEdit(t testing.TB, way, content, says string) {
	e := start(t, options{base: reloads[way].change(base)})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.requireWorks("attributes/test", "batch")
	pid, began := e.collector.PID(), e.startTime()
	refused := func() {
		at := e.mark()
		e.edit(way, content)
		e.requireNote(at, says)
		require.Equal(t, reloads[way].signal, e.logged(at.log, logReload) > 0, "only a signal reloads, whatever the file says")
		e.requireWorks("attributes/test", "batch")
	}
	refused()
	e.edit(way, base)
	e.requireNoNote()
	refused() // the second time it is as bad
	e.edit(way, withLocal(t))
	e.await("processors", "attributes/local")
	e.requireNoNote()
	e.requireWorks("attributes/test", "batch")
	require.Equal(t, pid, e.collector.PID())
	require.Equal(t, began, e.startTime())
	e.collector.Stop()
}

// requireNote waits until the health tells of a refused base file; the Collector stays healthy.
func (e *env) requireNote(at mark, says string) {
	e.t.Helper()
	e.awaitLog(at.log, logRefused)
	e.fleet.awaitHealth("a note with "+says, func(h *protobufs.ComponentHealth) bool {
		return h.Healthy && strings.Contains(h.LastError, e.file) && strings.Contains(h.LastError, "refused") && strings.Contains(h.LastError, says)
	})
}

// requireNoNote waits until nothing is wrong.
func (e *env) requireNoNote() {
	e.t.Helper()
	e.fleet.awaitHealth("without a note", func(h *protobufs.ComponentHealth) bool { return h.Healthy && h.LastError == "" })
}

// startFails is a base file that passes the checks and does not start.
func startFails(t testing.TB) string {
	t.Helper()
	unruly := edited(t, "  health_check: {", "  unruly: {on: start, do: error}\n  health_check: {")
	return replaceOnce(t, unruly, "extensions: [health_check, opamp]", "extensions: [health_check, opamp, unruly]")
}

// A base file that passes the checks and does not start is left for the one before.
func TestBaseFileThatDoesNotStartIsLeft(t *testing.T) {
	t.Parallel()
	for way, r := range reloads {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			e := start(t, options{base: r.change(base), binary: harness.Binary(t, "test/otelcol-unruly")})
			e.fleet.push("good", addAttribute)
			e.fleet.await(0, "good", "APPLIED")
			at, pid, began := e.mark(), e.collector.PID(), e.startTime()
			e.edit(way, startFails(t))
			e.requireNote(at, "unruly")
			e.requireWorks("attributes/test", "batch")
			e.edit(way, base)
			e.requireNoNote()
			e.requireWorks("attributes/test", "batch")
			require.Equal(t, pid, e.collector.PID())
			require.Equal(t, began, e.startTime())
			require.Equal(t, "good", e.state().Good.name(), "the remote configuration was blamed")
			e.collector.Stop()
		})
	}
}

// A stock build knows no base file but the one on disk. It ends, as every Collector does whose file is bad, and blames nothing
// that the server has sent: with the file repaired all is as before.
func TestStockBuildRecoversFromABaseFileThatDoesNotStart(t *testing.T) {
	t.Parallel()
	e := start(t, options{base: reloads["SIGHUP"].change(base), binary: harness.Binary(t, "test/otelcol-thirdparty")})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.edit("SIGHUP", startFails(t))
	for range 4 { // more than make a crash loop
		require.Error(t, e.collector.Wait(20*time.Second))
		e.collector.Launch()
	}
	require.Error(t, e.collector.Wait(20*time.Second))
	e.fleet.awaitGone()
	e.writeBase(base)
	said := len(e.fleet.said())
	e.collector.Start()
	e.fleet.await(said, "good", "APPLIED")
	e.requireWorks("attributes/test", "batch")
	e.collector.Stop()
}

// The upstream Collector ends when it gets a SIGHUP and the file is bad.
func TestSignalWithABadBaseFileDoesNotEndTheProcess(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	pid, began := e.collector.PID(), e.startTime()
	for _, name := range []string{"not YAML", "unknown key"} {
		bad, at := badEdits(t)[name], e.mark()
		e.edit("watched", bad.content)
		e.requireNote(at, bad.says)
		at = e.mark()
		e.collector.Signal(syscall.SIGHUP)
		e.awaitLog(at.log, logReload)
		e.awaitReadyAgain(at)
		e.requireWorks("batch")
		e.requireNote(mark{}, bad.says)
	}
	require.Equal(t, pid, e.collector.PID())
	require.Equal(t, began, e.startTime())
	e.collector.Stop()
}

// awaitReadyAgain waits for the end of a reload.
func (e *env) awaitReadyAgain(at mark) {
	e.t.Helper()
	e.awaitLog(at.log, "Everything is ready")
}

// Editors rename a new file over the old one; Kubernetes swaps a symbolic link that the file is behind.
func TestReplacedBaseFileIsSeen(t *testing.T) {
	t.Parallel()
	t.Run("rename", func(t *testing.T) {
		t.Parallel()
		e := start(t, options{})
		e.testReplaced(func(content string) {
			require.NoError(t, os.WriteFile(e.file+".new", []byte(content), 0o600))
			require.NoError(t, os.Rename(e.file+".new", e.file))
		})
	})
	t.Run("ConfigMap", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t, options{})
		dir, version := filepath.Dir(e.file), 0
		mount := func(content string) { // as the kubelet does: a new folder, then one rename of the link to it
			version++
			folder := "..version" + string(rune('0'+version))
			require.NoError(t, os.Mkdir(filepath.Join(dir, folder), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, folder, "base.yaml"), []byte(content), 0o600))
			require.NoError(t, os.Symlink(folder, filepath.Join(dir, "..data.new")))
			require.NoError(t, os.Rename(filepath.Join(dir, "..data.new"), filepath.Join(dir, "..data")))
		}
		mount(base)
		require.NoError(t, os.Remove(e.file))
		require.NoError(t, os.Symlink(filepath.Join("..data", "base.yaml"), e.file))
		e.collector.Start()
		e.testReplaced(mount)
	})
}

func (e *env) testReplaced(replace func(content string)) {
	e.t.Helper()
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	pid, began := e.collector.PID(), e.startTime()
	replace(withLocal(e.t))
	e.await("processors", "attributes/local")
	at := e.mark()
	replace("receivers: [")
	e.requireNote(at, "yaml")
	replace(base)
	e.requireNoNote()
	harness.Await(e.t, 20*time.Second, "the first base file", func() (bool, any) {
		return e.running("processors", "batch") != nil && e.running("processors", "attributes/local") == nil, e.fleet.effectiveConfig()
	})
	e.requireWorks("attributes/test", "batch")
	require.Equal(e.t, pid, e.collector.PID())
	require.Equal(e.t, began, e.startTime())
	e.collector.Stop()
}

// Without its base file a Collector runs on, and takes remote configuration, signals, and the file when it is there again.
func TestDeletedBaseFile(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	pid := e.collector.PID()
	require.NoError(t, os.Remove(e.file))
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.requireWorks("attributes/test", "batch")
	at := e.mark()
	e.collector.Signal(syscall.SIGHUP)
	e.awaitLog(at.log, logReload)
	e.awaitReadyAgain(at)
	e.requireNote(mark{}, "no such file")
	e.requireWorks("attributes/test", "batch")
	e.writeBase(withLocal(t))
	e.await("processors", "attributes/local")
	e.requireNoNote()
	require.Equal(t, pid, e.collector.PID())
	e.collector.Stop()
}

// A restart command reloads in the same process, unless the file is bad: then nothing is touched.
func TestRestartCommand(t *testing.T) {
	t.Parallel()
	restart := &protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{Type: protobufs.CommandType_CommandType_Restart}}
	e := start(t, options{base: reloads["SIGHUP"].change(base)}) // not watched
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	pid, began, connections := e.collector.PID(), e.startTime(), e.fleet.connected()
	for name, bad := range badEdits(t) {
		at := e.mark()
		e.writeBase(bad.content)
		e.fleet.send(restart)
		e.awaitLog(at.log, "The restart that the server asked for is refused")
		e.fleet.awaitHealth("refused: "+name, func(h *protobufs.ComponentHealth) bool {
			return h.Healthy && strings.Contains(h.LastError, "restart refused") && strings.Contains(h.LastError, bad.says)
		})
		require.Zero(t, e.logged(at.log, logReload))
	}
	e.requireWorks("attributes/test", "batch")

	e.writeBase(withLocal(t))
	e.fleet.send(restart)
	e.await("processors", "attributes/local")
	e.requireNoNote()
	at := e.mark()
	e.fleet.send(restart) // nothing has changed; it was asked for all the same
	e.awaitLog(at.log, logReload)
	e.awaitReadyAgain(at)
	e.requireWorks("attributes/test", "batch")
	require.Equal(t, pid, e.collector.PID())
	require.Equal(t, began, e.startTime())
	require.Equal(t, connections, e.fleet.connected(), "the connection was lost")
	e.collector.Stop()
}
