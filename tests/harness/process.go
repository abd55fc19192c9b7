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

// run is one run of a program under a test: its log is kept in a file, and its end belongs to the test.
type run struct {
	*process.Process
	t       testing.TB
	name    string
	logPath string
}

// start runs argv with exactly the given environment; output goes to a file in dir.
func start(t testing.TB, name, dir string, argv []string, env []string) *run {
	t.Helper()
	logPath := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open log of %s: %v", name, err)
	}
	defer func() { _ = log.Close() }()
	p, err := process.Start(process.Options{Argv: argv, Env: env, Dir: dir, Stdout: log, Stderr: log})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &run{Process: p, t: t, name: name, logPath: logPath}
}

// cleanup ends what still runs, and fails the test when the log shows a crash.
func (p *run) cleanup() {
	if p.Running() {
		if err := p.Stop(stopGrace); err != nil {
			p.t.Errorf("%s: exit: %v", p.name, err)
		}
	}
	log := p.log()
	for _, sign := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(log, sign) {
			p.t.Errorf("%s: its log contains %q", p.name, sign)
		}
	}
	if p.t.Failed() {
		p.t.Logf("last lines of %s:\n%s", p.name, tail(log, 60))
	}
}

func (p *run) log() string {
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

// rss is the resident memory in bytes, anonymous pages only: what the process itself holds.
func (p *run) rss() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssAnon:")); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
