package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/collie-otel/collie/internal/process"
)

// stopGrace is how long a process may take to leave after SIGTERM before that is a failure.
const stopGrace = 30 * time.Second

// Process is one run of a program under a test: its output is kept in a file, and the test's end is its end.
type Process struct {
	*process.Process
	t        testing.TB
	name     string
	logPath  string
	mayPanic bool // see Options
}

// StartProcess runs argv with exactly the given environment, and ends it at the test's end, however it takes that.
func StartProcess(t testing.TB, name string, env []string, argv ...string) *Process {
	t.Helper()
	p := start(t, name, t.TempDir(), env, argv)
	t.Cleanup(func() { _ = p.Stop(stopGrace) }) // before cleanup, which asks a process that still runs for its exit code
	return p
}

// start appends the output to a file in dir.
func start(t testing.TB, name, dir string, env, argv []string) *Process {
	t.Helper()
	logPath := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open log of %s: %v", name, err)
	}
	defer func() { _ = log.Close() }()
	child, err := process.Start(process.Options{Argv: argv, Env: env, Dir: dir, Stdout: log, Stderr: log})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p := &Process{Process: child, t: t, name: name, logPath: logPath}
	t.Cleanup(p.cleanup)
	return p
}

// MustStop sends SIGTERM, requires exit 0 within the grace period, and returns how long it took.
func (p *Process) MustStop() time.Duration {
	p.t.Helper()
	begin := time.Now()
	if err := p.Stop(stopGrace); err != nil {
		p.t.Fatalf("%s after SIGTERM: %v\n%s", p.name, err, tail(p.Log(), 20))
	}
	return time.Since(begin)
}

// MustRun fails the test when the process has ended by itself.
func (p *Process) MustRun() {
	p.t.Helper()
	if !p.Running() {
		p.t.Fatalf("%s has ended: %v\n%s", p.name, p.Wait(), tail(p.Log(), 20))
	}
}

// cleanup ends what still runs, and fails the test when the log shows a crash.
func (p *Process) cleanup() {
	if p.Running() {
		if err := p.Stop(stopGrace); err != nil {
			p.t.Errorf("%s: exit: %v", p.name, err)
		}
	}
	log := p.Log()
	if p.mayPanic {
		return
	}
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(log, sign) {
			p.t.Errorf("%s: its log contains %q", p.name, sign)
		}
	}
	if p.t.Failed() {
		p.t.Logf("last lines of %s:\n%s", p.name, tail(log, 60))
	}
}

// Log is all that it has printed.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.logPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Errorf("read log of %s: %v", p.name, err)
	}
	return string(b)
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// RSS is the resident memory in bytes, anonymous pages only: what the process itself holds.
func (p *Process) RSS() int64 { return p.memory("RssAnon:") }

// ResidentSet is the resident memory in bytes, pages of files included.
func (p *Process) ResidentSet() int64 { return p.memory("VmRSS:") }

func (p *Process) memory(field string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(field)); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// CPU is the CPU time of all threads that it has now, since their start.
func (p *Process) CPU() time.Duration {
	p.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.PID()))
	if err != nil || len(tasks) == 0 {
		p.t.Fatalf("%s: no CPU times: %v", p.name, err)
	}
	var total time.Duration
	for _, task := range tasks {
		content, err := os.ReadFile(task)
		if err != nil {
			continue // a thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(content))[0], 10, 64)
		if err != nil {
			p.t.Fatalf("%s: %v", task, err)
		}
		total += time.Duration(ns)
	}
	return total
}
