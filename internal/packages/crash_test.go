//go:build unix

package packages

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// childVariable names the file that tells a child process of these tests what to do.
const childVariable = "COLLIE_PACKAGES_TEST_CHILD"

// task is what a child does until it is killed after its KillAt-th change on disk.
type task struct {
	Directory, Executable, Version, Key string
	Offer                               []byte // to be installed; empty: do as Verdict says
	Verdict                             string // confirm, fail; empty: nothing
	KillAt                              int
}

// child is a process with a Manager, as far as the disk can tell. Exit 3: not killed.
func child(path string) {
	var todo task
	data, err := os.ReadFile(path)
	if err = errors.Join(err, json.Unmarshal(data, &todo)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	steps, restart := 0, false
	limits := DefaultLimits()
	m, err := Open(Options{
		Directory: todo.Directory, Executable: todo.Executable, Version: todo.Version, PublicKeys: []string{todo.Key}, Limits: limits,
		DryRun: Validate(nil, []string{"PATH=/usr/bin:/bin"}, limits.DryRun), Logger: zap.NewNop(),
		step: func() {
			if steps++; steps == todo.KillAt {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	switch {
	case todo.Verdict == "confirm":
		err = m.Confirm()
	case todo.Verdict == "fail":
		err = m.Fail("it does not work")
	case len(todo.Offer) > 0:
		var offer protobufs.PackagesAvailable
		err = proto.Unmarshal(todo.Offer, &offer)
		m.Offer(&offer)
		select {
		case <-m.Restart():
			restart = true
		case <-time.After(limit):
		}
		if !restart {
			err = fmt.Errorf("not installed: %v", m.Statuses())
		}
	}
	m.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(3)
}

// runChild says whether the child was killed.
func (f *fixture) runChild(version, verdict string, offer *protobufs.PackagesAvailable, killAt int) bool {
	f.t.Helper()
	todo := task{Directory: f.opts.Directory, Executable: f.exe, Version: version, Key: f.opts.PublicKeys[0], Verdict: verdict, KillAt: killAt}
	var err error
	if offer != nil {
		todo.Offer, err = proto.Marshal(offer)
		require.NoError(f.t, err)
	}
	data, err := json.Marshal(todo)
	require.NoError(f.t, err)
	path := filepath.Join(f.t.TempDir(), "task.json")
	require.NoError(f.t, os.WriteFile(path, data, 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(f.t, err, &exit)
	killed := exit.Sys().(syscall.WaitStatus).Signaled()
	require.True(f.t, killed || exit.ExitCode() == 3, "%v: %s", err, out)
	return killed
}

// found is which of the two executables is in place; anything else fails the test.
func (f *fixture) found() string {
	f.t.Helper()
	got, err := os.ReadFile(f.exe)
	require.NoError(f.t, err, "there must always be an executable")
	switch {
	case bytes.Equal(got, oldProgram):
		f.requireExecutable(oldProgram)
		return oldVersion
	case bytes.Equal(got, newProgram):
		f.requireExecutable(newProgram)
		return newVersion
	}
	require.FailNow(f.t, "the executable is neither the old nor the new one")
	return ""
}

func TestKilledWhileInstalling(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	at := 1
	for ; ; at++ {
		f := newFixture(t)
		if !f.runChild(oldVersion, "", f.offer(), at) {
			break
		}
		version := f.found()
		seen[version]++
		m := f.open(version) // the next process
		s := own(m)
		require.Equal(t, version, s.AgentHasVersion)
		require.Equal(t, f.found(), version, "opening changes nothing after a first start")
		if version == newVersion {
			require.True(t, m.OnTrial())
			require.Equal(t, statusInstalling, s.Status)
			require.Equal(t, "package "+newVersion, string(s.AgentHasHash))
			require.NoError(t, m.Confirm())
			require.Equal(t, statusInstalled, own(m).Status)
			continue
		}
		require.False(t, m.OnTrial())
		require.Equal(t, statusPending, s.Status, "killed at step %d", at)
		require.Empty(t, s.AgentHasHash)
		require.Empty(t, m.Statuses().ServerProvidedAllPackagesHash, "or the server would not offer it again")
		m.Offer(f.offer())
		awaitRestart(t, m)
		require.Equal(t, newVersion, f.found())
	}
	require.Greater(t, at, 5, "the steps were reached")
	require.Positive(t, seen[oldVersion])
	require.Positive(t, seen[newVersion])
}

func TestKilledWhileReverting(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for at := 1; ; at++ {
		f := newFixture(t)
		f.runChild(oldVersion, "", f.offer(), 0)
		require.Equal(t, newVersion, f.found())
		if !f.runChild(newVersion, "fail", nil, at) {
			require.Equal(t, oldVersion, f.found())
			break
		}
		version := f.found()
		seen[version]++
		m := f.open(version)
		require.Equal(t, oldVersion, f.found(), "killed at step %d", at)
		require.False(t, m.OnTrial())
		if version == newVersion {
			awaitRestart(t, m)
		}
		m.Close()
		m = f.open(oldVersion)
		s := own(m)
		require.Equal(t, statusFailed, s.Status)
		require.NotEmpty(t, s.ErrorMessage)
		require.Equal(t, oldVersion, s.AgentHasVersion)
		require.Empty(t, s.AgentHasHash)
		require.Empty(t, m.Restart())
	}
	require.Positive(t, seen[oldVersion])
	require.Positive(t, seen[newVersion])
}

func TestKilledWhileConfirming(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		f := newFixture(t)
		f.runChild(oldVersion, "", f.offer(), 0)
		killed := f.runChild(newVersion, "confirm", nil, at)
		m := f.open(newVersion)
		require.False(t, m.OnTrial())
		if s := own(m); f.found() == newVersion {
			require.Equal(t, statusInstalled, s.Status)
			require.Greater(t, at, 1, "killed before the verdict")
		} else {
			require.Equal(t, statusFailed, s.Status)
			awaitRestart(t, m)
		}
		if !killed {
			require.Equal(t, newVersion, f.found())
			return
		}
	}
}

func TestCrashTwiceBeforeTheVerdict(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.runChild(oldVersion, "", f.offer(), 0)
	require.True(t, f.runChild(newVersion, "", nil, 1), "the start of the new executable is on disk first")
	require.Equal(t, newVersion, f.found())
	f.opts.Changed = func(*protobufs.PackageStatuses) { t.Error("called by Open") }
	m := f.open(newVersion) // the service manager starts it once more
	awaitRestart(t, m)
	require.Equal(t, oldVersion, f.found())
	require.False(t, m.OnTrial())
	require.ErrorIs(t, m.Confirm(), ErrNotOnTrial)
	require.ErrorIs(t, m.Fail("x"), ErrNotOnTrial)
	m.Close()

	f.opts.Changed = nil
	m = f.open(oldVersion)
	s := own(m)
	require.Equal(t, statusFailed, s.Status)
	require.Contains(t, s.ErrorMessage, "before the new executable was confirmed")
	requests := len(f.files.seen())
	m.Offer(f.offer())
	awaitThat(t, m, func(*protobufs.PackageStatus) bool { return len(m.Statuses().ServerProvidedAllPackagesHash) > 0 })
	m.Close()
	require.Len(t, f.files.seen(), requests, "what has failed is not downloaded again")
	require.Equal(t, oldVersion, f.found())
	f.requireTidy()
}

// A process that always ends while it tries the new executable out, for the memory it takes for one, must not do so forever.
func TestKilledInEachDryRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const dryRun = 4 // changes on disk: downloading, ETag, checking, copied
	for range maxTries {
		require.True(t, f.runChild(oldVersion, "", f.offer(), dryRun))
	}
	m := f.open(oldVersion)
	require.Contains(t, awaitFailure(t, m, f.offer()), "3 times")
	require.Len(t, f.files.seen(), 1, "the complete download was used again")
	f.requireExecutable(oldProgram)
}
