package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopGrace is how long a process may take to leave after SIGTERM before that is a failure.
const stopGrace = 30 * time.Second

// process is one run of a program: from start to the end of its one Wait goroutine.
type process struct {
	t       testing.TB
	name    string
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed when Wait has returned
	waitErr error         // valid once exited is closed
}

// start runs argv with exactly the given environment; output goes to a file in dir.
func start(t testing.TB, name, dir string, argv []string, env []string) *process {
	t.Helper()
	logPath := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open log of %s: %v", name, err)
	}
	defer func() { _ = log.Close() }()

	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = env, log, log, dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{t: t, name: name, cmd: cmd, logPath: logPath, exited: make(chan struct{})}
	go func() {
		p.waitErr = cmd.Wait()
		close(p.exited)
	}()
	return p
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// terminate sends SIGTERM and returns how the process ended and after how long; past the grace period it kills.
func (p *process) terminate() (time.Duration, error) {
	begin := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return time.Since(begin), p.waitErr
	case <-time.After(stopGrace):
		p.kill()
		return time.Since(begin), fmt.Errorf("still running %v after SIGTERM", stopGrace)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// cleanup ends what still runs, and fails the test when the log shows a crash.
func (p *process) cleanup() {
	if p.running() {
		if _, err := p.terminate(); err != nil {
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

func (p *process) log() string {
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
func (p *process) rss() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
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
