package remoteconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/overlay"
	"github.com/collie-otel/collie/internal/statefile"
)

// machine is what survives a process: the disk, the server's memory, and the service manager.
type machine struct {
	t      *testing.T
	runner bool
	dir    string
	file   string
	// settings are lines of the extension's section.
	settings string
	process  *process

	readOnly, execFails, otherFileGone, killAfter atomic.Bool
	killIn                                        atomic.Int32 // writes until the process is killed
	unreachable                                   atomic.Value // one that lost an extension that starts before the agent's
	unreadable                                    atomic.Value // a remote configuration that was readable once
	drain                                         atomic.Int64 // how long an old service takes to end

	mu          sync.Mutex // guards all below
	words       []Status   // what the server has heard, repetitions left out
	connections []string   // the same about connection settings
	good        map[string]bool
	failed      map[string]bool
	died        map[string]bool // with it on trial
	starts      []string
}

// onMachine runs a test with a fake clock, in both kinds of Collectors.
func onMachine(t *testing.T, test func(w *machine)) {
	t.Helper()
	for name, runner := range map[string]bool{"runner": true, "stock": false} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test(newMachine(t, runner)) }) })
	}
}

func newMachine(t *testing.T, runner bool) *machine {
	w := &machine{
		t: t, runner: runner, dir: t.TempDir(), good: map[string]bool{}, failed: map[string]bool{},
		died: map[string]bool{},
	}
	w.file = filepath.Join(w.dir, "base.yaml")
	w.base("1", "")
	t.Cleanup(func() {
		if w.process != nil {
			w.process.die()
			<-w.process.ended
		}
	})
	return w
}

// base writes the base file, as an editor does: into another one, which then takes its place.
func (w *machine) base(name, do string) {
	w.t.Helper()
	content := fmt.Sprintf(`
receivers: {base: {name: %q, do: %q}}
extensions:
  opamp:
    server: {ws: {endpoint: "ws://127.0.0.1:1"}}
    storage: {directory: %q}
%s
service: {extensions: [opamp], pipelines: {traces: {receivers: [base]}}}
`, name, do, filepath.Join(w.dir, "opamp"), w.settings)
	w.write(content)
}

func (w *machine) write(content string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(w.file+".new", []byte(content), 0o600))
	require.NoError(w.t, os.Rename(w.file+".new", w.file))
}

// boot starts a process.
func (w *machine) boot() {
	w.t.Helper()
	w.process = newProcess(w)
	w.run(100 * time.Millisecond)
}

// run lets time pass. Whoever was not told to end is started again: by itself, or by the service manager.
func (w *machine) run(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(100*time.Millisecond, time.Until(end)))
		synctest.Wait()
		p := w.process
		select {
		case <-p.ended:
		default:
			continue
		}
		if !p.told.Load() {
			w.process = newProcess(w)
		}
	}
	synctest.Wait()
}

// stop ends the process in order, and requires that it ends.
func (w *machine) stop() error {
	w.t.Helper()
	w.process.told.Store(true)
	w.process.signals <- "TERM"
	select {
	case <-w.process.ended:
	case <-time.After(5 * time.Minute):
		w.t.Fatal("the process does not end")
	}
	w.process.mu.Lock()
	defer w.process.mu.Unlock()
	require.False(w.t, w.process.execed, "a process that was told to end executes itself")
	return w.process.exit
}

// kill is kill -9; the service manager starts the process again.
func (w *machine) kill() {
	w.process.crash()
	<-w.process.ended
}

func (w *machine) hangUp() { w.process.signals <- "HUP" }

// offer is what the server sends; the hash is the name.
func (w *machine) offer(name, do string) {
	w.process.m.Offer(&Generation{Hash: []byte(name), Files: []overlay.File{{Body: []byte(fmt.Sprintf(
		"processors: {remote: {name: %q, do: %q}}\nservice: {pipelines: {traces: {processors: [remote]}}}", name, do))}}})
}

// heard is the server's side of Report.
func (w *machine) heard(p *process, word Status) {
	if p.isDead() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.words); n > 0 && sameWord(w.words[n-1], word) || n == 0 && word.Outcome == "" {
		return
	}
	w.words = append(w.words, word)
	switch word.Outcome {
	case Applied:
		w.good[string(word.Hash)] = true
	case Failed:
		w.failed[string(word.Hash)] = true
	}
}

// heardOfConnections is the server's side of ReportConnections.
func (w *machine) heardOfConnections(p *process, word Status) {
	said := string(word.Outcome) + " " + string(word.Hash)
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.connections); !p.isDead() && said != " " && (n == 0 || w.connections[n-1] != said) {
		w.connections = append(w.connections, said)
	}
}

func sameWord(a, b Status) bool {
	return string(a.Hash) == string(b.Hash) && a.Outcome == b.Outcome && a.Message == b.Message
}

// said are the words so far, as in "APPLYING A".
func (w *machine) said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var said []string
	for _, word := range w.words {
		said = append(said, string(word.Outcome)+" "+string(word.Hash))
	}
	return said
}

func (w *machine) last() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.words) == 0 {
		return Status{}
	}
	return w.words[len(w.words)-1]
}

// running is what serves: the base file's name, a plus, and the remote configuration's.
func (w *machine) running() string {
	w.process.mu.Lock()
	defer w.process.mu.Unlock()
	return w.process.running
}

func (w *machine) note() string {
	w.process.mu.Lock()
	defer w.process.mu.Unlock()
	return w.process.note
}

// onDisk is what the next process would find.
func (w *machine) onDisk() stored {
	w.t.Helper()
	var s stored
	require.NoError(w.t, statefile.Peek(filepath.Join(w.dir, "opamp", stateFile), &s))
	return s
}

// crashed takes note of what a process dies with.
func (w *machine) crashed() {
	disk := stored{}
	_ = statefile.Peek(filepath.Join(w.dir, "opamp", stateFile), &disk)
	if disk.Running && disk.Trial != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.died[string(disk.Trial.Hash)] = true
	}
}

// sawStart holds every start of a service to what must always be true.
func (w *machine) sawStart(s *service) {
	name := s.remote()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starts = append(w.starts, s.name())
	if name == "" {
		return
	}
	if w.failed[name] {
		w.t.Errorf("%s is known to be bad, and is started again", name)
	}
	if w.good[name] {
		return
	}
	disk := stored{}
	err := statefile.Peek(filepath.Join(w.dir, "opamp", stateFile), &disk)
	if disk.Good.is(aboutConfig, []byte(name)) {
		return // the process died before it could say so
	}
	if w.died[name] {
		w.t.Errorf("%s was never good, the process crashed with it, and it is started again", name)
	}
	if w.readOnly.Load() {
		return
	}
	if err != nil || string(disk.Trial.hash(aboutConfig)) != name {
		w.t.Errorf("%s is started for the first time, and its marker is not on disk: %v, %q", name, err, disk.Trial.hash(aboutConfig))
	}
}
