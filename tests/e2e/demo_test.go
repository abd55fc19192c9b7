package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
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
	for _, m := range regexp.MustCompile(`(?m)^(server|agent-1|agent-2|gateway|sink|load) +(\d+)`).FindAllStringSubmatch(out.String(), -1) {
		pids[m[1]], _ = strconv.Atoi(m[2])
	}
	require.Len(t, pids, 6, out.String())
	return pids
}

// typeExample types what the demo says to try with an example, and returns what it printed.
func typeExample(t *testing.T, out *output, example string) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^  \S+ (config apply .*examples/` + example + `\.yaml .*?) +#`).FindStringSubmatch(out.String())
	require.NotNil(t, line, out.String())
	server := regexp.MustCompile(`(?m)^server +\d+ +(\S+)`).FindStringSubmatch(out.String())
	cmd := exec.Command(harness.Binary(t, "collie"), strings.Fields(line[1])...)
	cmd.Env = []string{"COLLIE_SERVER=http://" + server[1]}
	printed, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", printed)
	return string(printed)
}

// What the demo says to try works: a rollout to the agents, and one to the gateway after which only slow traces arrive.
func tryExamples(t *testing.T) {
	p, out := startDemo(t)
	pids := awaitFlow(t, p, out)
	begin := time.Now()
	require.Contains(t, typeExample(t, out, "add-attribute"), "2 good")
	require.Contains(t, typeExample(t, out, "slow-only"), "1 good")
	t.Logf("both rolled out within %v", time.Since(begin))
	// 1,000 spans/s come in; a tenth of the traces is slow. Each row ends with what the gateway sent, its queue, and the total.
	row := regexp.MustCompile(`(?m)\| +(\d+) +(\d+) +\d+ \| \d+$`)
	harness.Await(t, 60*time.Second, "the gateway sends a part of what it takes", func() (bool, any) {
		rows := row.FindAllStringSubmatch(out.String(), -1)
		last := rows[len(rows)-1]
		accepted, _ := strconv.Atoi(last[1])
		sent, _ := strconv.Atoi(last[2])
		return accepted > 500 && sent > 0 && sent < accepted/2, last
	})
	p.Signal(syscall.SIGINT)
	require.NoError(t, p.Wait(), out.String())
	require.Contains(t, out.String(), "what they drop is missing on purpose")
	requireGone(t, pids)
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
	t.Run("its examples work", tryExamples)
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
