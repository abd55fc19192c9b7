package deploy_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// sandboxVariable names the sandbox's directory to the process inside.
const sandboxVariable = "COLLIE_TEST_SANDBOX"

// sandbox runs the calling test again, in namespaces of its own for network, mounts and processes, and says whether this
// is the run inside: outside, the caller returns at once.
//
// Whatever a daemon leaves behind goes with the namespaces: when the process inside ends, for whatever reason, the kernel
// kills the rest, and mounts, interfaces and firewall rules were never the machine's. The directory and the cgroups are
// removed by the process outside. It must not be t.Parallel with a test that sets the environment.
func sandbox(t *testing.T) (string, bool) {
	t.Helper()
	if inside := os.Getenv(sandboxVariable); inside != "" {
		command(t, time.Minute, nil, tool(t, "ip"), "link", "set", "lo", "up")
		// As systemd has it: without, Docker refuses what deploy/ asks for, that the agent sees later mounts of the host.
		command(t, time.Minute, nil, tool(t, "mount"), "--make-rshared", "/")
		return inside, true
	}
	if os.Geteuid() != 0 {
		require.FailNow(t, "this test starts dockerd in namespaces of its own and must be root")
	}
	dir, err := os.MkdirTemp("", sandboxPrefix)
	require.NoError(t, err)
	defer func() {
		removeCgroups(t, filepath.Base(dir))
		require.NoError(t, os.RemoveAll(dir))
	}()
	// The kernel sends Pdeathsig when the thread ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(t.Context(), sandboxLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, "unshare"), "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
		os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+sandboxLimit.String())
	cmd.Env = append(os.Environ(), sandboxVariable+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "inside the sandbox:\n%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "the test did not run inside the sandbox:\n%s", out)
	t.Logf("inside the sandbox:\n%s", out)
	return "", false
}

// sandboxPrefix begins the names of a sandbox's directory and of its cgroups.
const sandboxPrefix = "collie-test-"

// sandboxLimit is for the whole test inside.
const sandboxLimit = 5 * time.Minute

// removeCgroups removes the cgroups with this name from every hierarchy. Their processes are dead, but the kernel may need
// a moment to see it.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	// The others on this machine are not ours, empty or not.
	require.Regexp(t, "^"+sandboxPrefix+"[0-9]+$", name)
	harness.Await(t, 10*time.Second, "cgroups of "+name+" removed", func() (bool, any) {
		var dirs []string
		// /sys/fs/cgroup/NAME with cgroup v2, /sys/fs/cgroup/HIERARCHY/NAME with v1.
		for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			tops, _ := filepath.Glob(pattern + name)
			for _, top := range tops {
				_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
					if err == nil && entry.IsDir() {
						dirs = append(dirs, path)
					}
					return nil
				})
			}
		}
		slices.Reverse(dirs) // children first
		var failed []string
		for _, dir := range dirs {
			if err := syscall.Rmdir(dir); err != nil {
				failed = append(failed, dir+": "+err.Error())
			}
		}
		return len(failed) == 0, strings.Join(failed, "\n")
	})
}
