// Package process runs a child program: started with exactly the given environment, ended by SIGTERM and, when it does
// not listen, by SIGKILL, and on Linux dead when its parent is. It knows nothing of what the child does.
package process

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Options says what to run.
type Options struct {
	// Argv is the program's path and its arguments.
	Argv []string
	// Env is the whole environment, KEY=VALUE each.
	Env []string
	// Dir is the working directory.
	Dir string
	// Stdout and Stderr take the output; an *os.File is handed to the child as it is.
	Stdout, Stderr io.Writer
}

// Process is one run of a program, from Start to its end.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the one Wait has returned
	err    error         // how it ended; valid once exited is closed
}

// Start starts the program. The process must be ended by Stop or Kill, or end by itself.
func Start(opts Options) (*Process, error) {
	cmd := exec.Command(opts.Argv[0], opts.Argv[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = opts.Env, opts.Dir, opts.Stdout, opts.Stderr
	cmd.SysProcAttr = attributes()
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// On Linux the child is killed when the thread ends that has started it: this one stays until the child has ended.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", opts.Argv[0], err)
	}
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Wait waits for the end; the error is nil for exit code 0, else an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.exited
	return p.err
}

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// Stop sends SIGTERM and waits at most grace, then kills. The error says how the process ended.
func (p *Process) Stop(grace time.Duration) error {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		return p.err
	case <-time.After(grace):
		_ = p.Kill()
		return fmt.Errorf("still running %v after SIGTERM", grace)
	}
}

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() error {
	_ = p.cmd.Process.Kill()
	return p.Wait()
}
