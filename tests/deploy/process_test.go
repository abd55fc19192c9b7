package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is a child that dies with its test.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string        // path of its output
	ended chan struct{} // closed when err is set
	err   error         // of Wait
}

// startProcess starts a program with exactly this environment. The end of the test stops it, and shows the end of its
// output when the test has failed.
func startProcess(t *testing.T, name string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(t.TempDir(), "output"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	require.NoError(t, err)
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread ends that has started the child.
		runtime.LockOSThread()
		defer func() { _ = log.Close() }()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.ended)
		}
	}()
	require.NoError(t, <-started)
	t.Cleanup(func() {
		_ = p.stop(15 * time.Second)
		if t.Failed() {
			t.Logf("%s:\n%s", name, p.tail())
		}
	})
	return p
}

// stop sends SIGTERM, and SIGKILL after the limit; it returns how the process ended.
func (p *process) stop(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.kill()
	}
	return p.err
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// mustRun fails the test when the process has ended by itself.
func (p *process) mustRun(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		require.FailNow(t, p.name+" has ended", "%v\n%s", p.err, p.tail())
	default:
	}
}

// tail is the end of what it has printed, without the long ends of lines.
func (p *process) tail() string {
	lines := strings.Split(p.output(), "\n")
	lines = lines[max(0, len(lines)-15):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), 250)]
	}
	return strings.Join(lines, "\n")
}

// output is what it has printed.
func (p *process) output() string {
	content, _ := os.ReadFile(p.log)
	return strings.TrimSpace(string(content))
}
