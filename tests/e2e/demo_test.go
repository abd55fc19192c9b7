package e2e

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/process"
	"github.com/collie-otel/collie/tests/harness"
)

// output collects what a program prints while it runs.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func startDemo(t *testing.T, args ...string) (*process.Process, *output) {
	t.Helper()
	out := &output{}
	argv := append([]string{harness.Binary(t, "collie"), "demo"}, args...)
	p, err := process.Start(process.Options{Argv: argv, Env: []string{"TMPDIR=" + t.TempDir()}, Stdout: out, Stderr: out})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Kill() })
	return p, out
}

// awaitFlow waits for a row of live numbers with spans delivered, and returns the process ids by role.
func awaitFlow(t *testing.T, p *process.Process, out *output) map[string]int {
	t.Helper()
	delivered := regexp.MustCompile(`\| [1-9][0-9]*\n`)
	harness.Await(t, 60*time.Second, "spans delivered", func() (bool, any) {
		return !p.Running() || delivered.MatchString(out.String()), out.String()
	})
	require.True(t, p.Running(), out.String())
	pids := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^(agent|gateway|sink|load) +(\d+)`).FindAllStringSubmatch(out.String(), -1) {
		pids[m[1]], _ = strconv.Atoi(m[2])
	}
	require.Len(t, pids, 4, out.String())
	return pids
}

func requireGone(t *testing.T, pids map[string]int) {
	t.Helper()
	for role, pid := range pids {
		harness.Await(t, 10*time.Second, role+" gone", func() (bool, any) {
			process, err := os.FindProcess(pid)
			return err != nil || process.Signal(syscall.Signal(0)) != nil, pid
		})
	}
}

var nothingLost = regexp.MustCompile(`[1-9][0-9]* arrived at the sink; 0 acknowledged ones missing`)

// One after the other: demos share the usual ports.
func TestDemo(t *testing.T) {
	t.Parallel()
	t.Run("ends by itself", func(t *testing.T) {
		p, out := startDemo(t, "--duration", "5s")
		pids := awaitFlow(t, p, out)
		require.NoError(t, p.Wait(), out.String())
		require.Regexp(t, nothingLost, out.String())
		requireGone(t, pids)
	})
	t.Run("ends on interrupt", func(t *testing.T) {
		p, out := startDemo(t)
		pids := awaitFlow(t, p, out)
		p.Signal(syscall.SIGINT)
		require.NoError(t, p.Wait(), out.String())
		require.Regexp(t, nothingLost, out.String())
		requireGone(t, pids)
	})
	t.Run("says when a member dies", func(t *testing.T) {
		p, out := startDemo(t)
		pids := awaitFlow(t, p, out)
		require.NoError(t, syscall.Kill(pids["gateway"], syscall.SIGKILL))
		require.Error(t, p.Wait(), out.String())
		require.Contains(t, out.String(), "the gateway ended")
		requireGone(t, pids)
	})
	t.Run("dies without leaving anything", func(t *testing.T) {
		p, out := startDemo(t)
		pids := awaitFlow(t, p, out)
		require.Error(t, p.Kill())
		requireGone(t, pids)
	})
}
