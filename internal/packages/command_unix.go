//go:build unix

package packages

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// supported: a running executable may be renamed and removed.
const supported = true

// command runs a program to its end, or kills it with all its children. internal/process kills the program only.
func command(ctx context.Context, path string, args, env []string, out io.Writer) error {
	for tries := 0; ; tries++ {
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second // for children that have left the group and hold the output
		err := cmd.Run()
		// A child that somebody else starts at this moment may still hold the file open that was written just now.
		if tries == 20 || !errors.Is(err, syscall.ETXTBSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
