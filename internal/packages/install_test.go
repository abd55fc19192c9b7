//go:build unix

package packages

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

func TestInstallAndConfirm(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var h history
	f.opts.Changed = h.add
	m := f.open(oldVersion)
	s := own(m)
	require.True(t, proto.Equal(&protobufs.PackageStatus{Name: Name, AgentHasVersion: oldVersion}, s), "installed by other means: %v", s)
	m.Offer(f.offer())
	awaitRestart(t, m)
	require.Equal(t, []status{statusDownloading, statusInstalling}, h.statuses())
	f.requireExecutable(newProgram)
	previous, err := os.ReadFile(f.exe + ".previous")
	require.NoError(t, err)
	require.Equal(t, string(oldProgram), string(previous))
	f.requireTidy("otelcol-collie.previous")
	require.Equal(t, oldVersion, own(m).AgentHasVersion, "until the process is replaced")
	require.False(t, m.OnTrial(), "it is not this process that is on trial")
	require.ErrorIs(t, m.Confirm(), ErrNotOnTrial)
	m.Close()

	m = f.open(newVersion)
	require.True(t, m.OnTrial())
	require.Equal(t, statusInstalling, own(m).Status)
	require.NoError(t, m.Confirm())
	require.False(t, m.OnTrial())
	want := &protobufs.PackageStatuses{
		ServerProvidedAllPackagesHash: []byte("all of package " + newVersion),
		Packages: map[string]*protobufs.PackageStatus{Name: {
			Name: Name, AgentHasVersion: newVersion, AgentHasHash: []byte("package " + newVersion),
			ServerOfferedVersion: newVersion, ServerOfferedHash: []byte("package " + newVersion), Status: statusInstalled,
		}},
	}
	require.True(t, proto.Equal(want, m.Statuses()), "%v", m.Statuses())
	m.Close()

	m = f.open(newVersion)
	require.True(t, proto.Equal(want, m.Statuses()), "the same after a restart: %v", m.Statuses())
	again := f.offer()
	again.AllPackagesHash = []byte("changed")
	m.Offer(again)
	awaitThat(t, m, func(*protobufs.PackageStatus) bool {
		return string(m.Statuses().ServerProvidedAllPackagesHash) == "changed"
	})
	require.Equal(t, statusInstalled, own(m).Status)
	require.Len(t, f.files.seen(), 1, "what is installed is not downloaded again")
}

func TestFail(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	m.Close()
	m = f.open(newVersion)
	require.NoError(t, m.Fail("exporter otlp: unhealthy for 30s"))
	awaitRestart(t, m)
	f.requireExecutable(oldProgram)
	require.Equal(t, statusFailed, own(m).Status)
	m.Close()
	m = f.open(oldVersion)
	require.False(t, m.OnTrial())
	s := own(m)
	require.Equal(t, statusFailed, s.Status)
	require.Equal(t, "exporter otlp: unhealthy for 30s", s.ErrorMessage)
	require.Equal(t, oldVersion, s.AgentHasVersion)
	require.Contains(t, awaitFailure(t, m, f.offer()), "unhealthy", "not tried again")
	m.Offer(f.offer(func(p *protobufs.PackageAvailable) { p.Hash = []byte("forced") }))
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
}

func TestFailWithoutThePreviousExecutable(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"gone":  os.Remove,
		"other": func(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\nexit 0\n"), 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			m := f.open(oldVersion)
			m.Offer(f.offer())
			awaitRestart(t, m)
			m.Close()
			require.NoError(t, damage(f.exe+".previous"))
			m = f.open(newVersion)
			require.Error(t, m.Fail("it does not work"))
			require.Empty(t, m.Restart())
			f.requireExecutable(newProgram)
			s := own(m)
			require.Equal(t, statusFailed, s.Status)
			require.Contains(t, s.ErrorMessage, "it still runs")
			require.Equal(t, newVersion, s.AgentHasVersion, "that is the truth")
			m.Close()
			m = f.open(newVersion)
			require.False(t, m.OnTrial())
			require.True(t, proto.Equal(s, own(m)), "%v", own(m))
		})
	}
}

func TestNotInstalled(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		content []byte // what is served, offered and signed
		edit    func(f *fixture, p *protobufs.PackageAvailable)
		want    string
	}{
		"signature of other content": {content: newProgram, want: "does not belong", edit: func(f *fixture, p *protobufs.PackageAvailable) {
			p.File.Signature = f.sign([]byte("other"), trustedComment(newVersion))
		}},
		"trusted comment changed": {content: newProgram, want: "does not belong", edit: func(f *fixture, p *protobufs.PackageAvailable) {
			signed := f.sign(newProgram, trustedComment("0.9.0"))
			p.File.Signature = bytes.Replace(signed, []byte(trustedComment("0.9.0")), []byte(trustedComment(newVersion)), 1)
		}},
		"other content": {content: newProgram, want: "content_hash", edit: func(f *fixture, _ *protobufs.PackageAvailable) {
			f.files.content = append([]byte{'x'}, newProgram[1:]...)
		}},
		"validate fails":   {content: program(newVersion, "echo 'unknown component: foo' >&2; false"), want: "unknown component: foo"},
		"other --version":  {content: program("1.1.0-rc.1", "true"), want: "does not name 1.1.0"},
		"no executable":    {content: []byte("text"), want: "does not work here"},
		"output not UTF-8": {content: program(newVersion, `printf '\377\376'; false`), want: "does not work here"},
		"verbose":          {content: program(newVersion, `i=0; while [ $i -lt 3000 ]; do echo "line $i"; i=$((i+1)); done; false`), want: "line 2999"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.files.content = tc.content
			offer := f.offer(func(p *protobufs.PackageAvailable) {
				p.File.ContentHash, p.File.Signature = sum(tc.content), f.sign(tc.content, trustedComment(newVersion))
				if tc.edit != nil {
					tc.edit(f, p)
				}
			})
			m := f.open(oldVersion)
			message := awaitFailure(t, m, offer)
			require.Contains(t, message, tc.want)
			require.LessOrEqual(t, len(message), maxMessage+4)
			_, err := proto.Marshal(m.Statuses())
			require.NoError(t, err)
			f.requireExecutable(oldProgram)
			f.requireTidyAfterFailure(m)
			require.Len(t, f.files.seen(), 1)

			offer.AllPackagesHash = []byte("again")
			require.Equal(t, message, awaitFailure(t, m, offer))
			m.Close()
			m = f.open(oldVersion)
			require.Equal(t, message, own(m).ErrorMessage)
			offer.AllPackagesHash = []byte("and again")
			require.Equal(t, message, awaitFailure(t, m, offer))
			require.Len(t, f.files.seen(), 1, "a package that failed is not tried again")
		})
	}
}

func (f *fixture) requireTidyAfterFailure(m *Manager) {
	f.t.Helper()
	f.requireTidy()
	require.NoFileExists(f.t, m.partial())
}

func TestHangingExecutableIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	hanging := program(newVersion, "sleep 600 & echo $! >"+pidFile+"; wait")
	f.files.content = hanging
	f.opts.DryRun = Validate(nil, []string{"PATH=/usr/bin:/bin"}, 2*time.Second)
	m := f.open(oldVersion)
	require.Contains(t, awaitFailure(t, m, f.offer(func(p *protobufs.PackageAvailable) {
		p.File.ContentHash, p.File.Signature = sum(hanging), f.sign(hanging, trustedComment(newVersion))
	})), "still running")
	pid, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !running(strings.TrimSpace(string(pid))) }, limit, time.Millisecond)
}

// running: killed children of others stay as zombies until somebody takes them.
func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestValidateRunsWithTheSameConfigurationAndEnvironment(t *testing.T) {
	t.Parallel()
	seen := filepath.Join(t.TempDir(), "seen")
	exe := filepath.Join(t.TempDir(), "exe")
	require.NoError(t, os.WriteFile(exe, program(newVersion, `echo "$* $SECRET" >`+seen), 0o700))
	args := []string{"--config", "a.yaml", "--config=b.yaml", "--set=x.y=1", "--unknown", "z", "--feature-gates=-a,+b"}
	require.NoError(t, Validate(args, []string{"SECRET=s3cret"}, limit)(t.Context(), exe, newVersion))
	got, err := os.ReadFile(seen)
	require.NoError(t, err)
	require.Equal(t, "validate --config=a.yaml --config=b.yaml --set=x.y=1 --feature-gates=-a,+b s3cret\n", string(got))
}

func TestAdoptsWhatIsThereAlready(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	m.Offer(&protobufs.PackagesAvailable{AllPackagesHash: []byte("all"), Packages: map[string]*protobufs.PackageAvailable{"": f.packageOf(oldVersion, oldProgram)}})
	awaitThat(t, m, func(s *protobufs.PackageStatus) bool { return len(s.AgentHasHash) > 0 })
	m.Close()
	m = f.open(oldVersion)
	s := own(m)
	require.Equal(t, "", s.Name, "the server's name for it")
	require.Equal(t, statusInstalled, s.Status)
	require.Equal(t, "package "+oldVersion, string(s.AgentHasHash))
	require.Empty(t, f.files.seen())
	m.Close()

	require.NoError(t, os.WriteFile(f.exe, newProgram, 0o755)) // by a package manager
	m = f.open(newVersion)
	require.Empty(t, own(m).AgentHasHash, "it is not what the server had installed")
	require.Equal(t, newVersion, own(m).AgentHasVersion)
}

func TestExecutableReplacedBehindOurBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	other := program("1.0.1", "true")
	require.NoError(t, os.WriteFile(f.exe+".tmp", other, 0o755))
	require.NoError(t, os.Rename(f.exe+".tmp", f.exe))
	require.Contains(t, awaitFailure(t, m, f.offer()), "not the one that runs")
	f.requireExecutable(other)
	require.Empty(t, f.files.seen())
}

func TestExecutableReplacedDuringTheTrial(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	m.Close()
	other := program("1.0.1", "true")
	require.NoError(t, os.WriteFile(f.exe, other, 0o755))
	m = f.open("1.0.1")
	require.False(t, m.OnTrial())
	require.Equal(t, statusFailed, own(m).Status)
	require.Equal(t, "1.0.1", own(m).AgentHasVersion)
	f.requireExecutable(other)
}

func TestSymbolicLinkStays(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	link := filepath.Join(t.TempDir(), "otelcol-collie")
	require.NoError(t, os.Symlink(f.exe, link))
	f.opts.Executable = link
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
	target, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, f.exe, target)
}

func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.opts.Executable = "/proc/version" // no user can make a file beside it, root neither
	m := f.open(oldVersion)
	require.Contains(t, awaitFailure(t, m, f.offer()), "cannot be written")
	require.Empty(t, f.files.seen(), "found out before the download")
}

func TestStateCannotBeStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.opts.StagingDirectory = t.TempDir()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f.opts.Directory = filepath.Join(file, "folder")
	m := f.open(oldVersion)
	require.Contains(t, awaitFailure(t, m, f.offer()), "cannot be stored")
	require.Empty(t, f.files.seen())
	f.requireExecutable(oldProgram)
}

// Two Collectors from one executable: neither takes the other's files, and the second one does not replace what it does not run.
func TestTwoAgentsWithOneExecutable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.open(oldVersion)
	f.opts.Directory = t.TempDir()
	second := f.open(oldVersion)
	require.NotEqual(t, first.beside("new"), second.beside("new"))
	first.Offer(f.offer())
	awaitRestart(t, first)
	require.Contains(t, awaitFailure(t, second, f.offer()), "restart the Collector first")
	second.Close()
	second = f.open(newVersion) // restarted by somebody
	second.Offer(f.offer())
	require.Equal(t, "package "+newVersion, string(await(t, second, statusInstalled).AgentHasHash))
	f.requireExecutable(newProgram)
}

// A start on trial that cannot be counted would not be limited either.
func TestStartCannotBeCounted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	m.Close()
	require.NoError(t, os.MkdirAll(m.statePath+".new", 0o700)) // the next write fails, for root too
	m = f.open(newVersion)
	awaitRestart(t, m)
	f.requireExecutable(oldProgram)
	m.Close()
	require.NotEqual(t, statusInstalled, own(f.open(oldVersion)).Status)
}

func TestPreviousCannotBeKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	blocked := m.beside("previous")
	require.NoError(t, os.MkdirAll(filepath.Join(blocked, "not empty"), 0o700))
	require.Contains(t, awaitFailure(t, m, f.offer()), "keep the old executable")
	f.requireExecutable(oldProgram)
	f.requireTidy(filepath.Base(blocked))
	require.NoError(t, os.RemoveAll(blocked))
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
	require.Len(t, f.files.seen(), 1, "what was downloaded is used")
}

func TestDamagedState(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	path := filepath.Join(f.opts.Directory, "packages.json")
	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	m := f.open(oldVersion)
	require.Equal(t, statusInstalled, own(m).Status)
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(*Options)
		want string
	}{
		"key":        {func(o *Options) { o.PublicKeys = append(o.PublicKeys, "RWQ") }, "public_keys[1]"},
		"executable": {func(o *Options) { o.Executable += "-missing" }, "find the executable"},
		"version":    {func(o *Options) { o.Version = "" }, "must be set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			tc.edit(&f.opts)
			_, err := Open(f.opts)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestCloseTwiceAndOffersAfterwards(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	m.Close()
	m.Close()
	m.Offer(f.offer())
	m.Offer(nil)
	require.ErrorIs(t, m.Confirm(), ErrNotOnTrial)
	require.Empty(t, f.files.seen())
}
