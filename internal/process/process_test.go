package process

import (
	"bytes"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startShell(t *testing.T, script string, out *bytes.Buffer) *Process {
	t.Helper()
	p, err := Start(Options{Argv: []string{"/bin/sh", "-c", script}, Env: []string{"GREETING=hello"}, Dir: t.TempDir(), Stdout: out})
	require.NoError(t, err)
	return p
}

func TestEndsByItself(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := startShell(t, `echo "$GREETING $HOME"; exit 3`, &out)
	var exit *exec.ExitError
	require.ErrorAs(t, p.Wait(), &exit)
	require.Equal(t, 3, exit.ExitCode())
	require.Equal(t, "hello \n", out.String(), "exactly the given environment")
	require.False(t, p.Running())
	require.Error(t, p.Stop(time.Second), "stopping it again says how it ended")
}

func TestStop(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ script, want string }{
		"listens":         {`trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`, ""},
		"does not":        {`trap '' TERM; echo ready; while :; do sleep 0.01; done`, "still running"},
		"dies of SIGTERM": {`echo ready; exec sleep 60`, "terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ready := make(chan struct{}, 1)
			p, err := Start(Options{Argv: []string{"/bin/sh", "-c", tc.script}, Env: []string{"PATH=/usr/bin:/bin"}, Stdout: signalWriter(ready)})
			require.NoError(t, err)
			<-ready
			require.True(t, p.Running())
			require.Positive(t, p.PID())
			if err := p.Stop(2 * time.Second); tc.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, tc.want)
			}
			require.False(t, p.Running())
		})
	}
}

func TestStartOfNothing(t *testing.T) {
	t.Parallel()
	_, err := Start(Options{Argv: []string{"/does/not/exist"}})
	require.ErrorContains(t, err, "/does/not/exist")
}

// signalWriter tells its channel that something was written.
type signalWriter chan struct{}

func (w signalWriter) Write(b []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default:
	}
	return len(b), nil
}
