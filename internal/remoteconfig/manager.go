package remoteconfig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/collector/confmap"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/statefile"
)

// stateFile is the name of the state file in the storage directory.
const stateFile = "remote-config.json"

// Checker makes dry runs: see dryrun.Checker.
type Checker interface {
	Check(ctx context.Context, source dryrun.Source) (*dryrun.Result, error)
	Resolve(ctx context.Context, source dryrun.Source) (*dryrun.Result, error)
	Aliases(kind, name string) []string
}

// Host is what the extension of one run brings.
type Host struct {
	Checker Checker
	Logger  *zap.Logger
	// Report and ReportConnections tell the server; they must not block.
	Report, ReportConnections func(Status)
	// Note puts a sentence into the agent's health although its components are well; empty takes it away.
	Note func(string)
	// Reread has the effective configuration reported anew: a partial reload tells nobody of it.
	Reread func()
	// Starting names the components whose start has not come back yet.
	Starting func() []string
	// Grace is how long a component may have a recoverable error.
	Grace time.Duration
}

// Problem is an error of a component.
type Problem struct {
	Err string
	// Lasting errors do not go away by themselves.
	Lasting bool
}

// phase is where the Collector is between two configurations.
type phase int

const (
	phaseIdle      phase = iota
	phaseReloading       // a reload was asked for; the old service may still be draining
	phaseStarting        // the Collector has been given a configuration and is not ready
	phaseSoaking         // ready, and on trial
)

// run is one run of the service, from the moment when it was given its configuration.
type run struct {
	generation *Generation
	digest     string    // of the merged configuration
	ready      time.Time // zero until it is
}

// results are for the metrics.
type results struct {
	applied, refused int64         // remote configurations, in this process
	came, ran        time.Time     // when the last one was offered, and when the Collector was last ready
	took             time.Duration // from the offer of the last good one until it ran
}

// Manager decides which configuration the Collector of one base file runs. Its methods are called by the provider, by the
// extension, by the session and by the runner, each from its own goroutine; none of them waits for the network. Checks, which
// take milliseconds or more, are made by one goroutine (see work) and in Retrieve.
type Manager struct {
	path   string
	runner bool         // a failed start comes back through Ended
	exec   func() error // executes the process again; it returns only when it could not
	kill   func() error // ends the process at once, as a crash would
	write  func(path string, state any) error
	marks  bool // this process runs the Collector for sure: see load
	wake   chan struct{}

	mu       sync.Mutex // guards all below
	host     Host
	attached bool // the extension has been started in this process: it is no `validate`
	stop     func()
	watch    confmap.WatcherFunc // nil when it must not be called
	fired    chan struct{}       // closed when the watcher that was called last has returned
	dir      string
	newUID   uuid.UUID // of this agent, unless it has one
	damage   error     // of the state file
	stored   stored
	unsaved  bool // stored is not on disk

	base     *base
	fallback *base          // to return to when base does not start
	badBase  [32]byte       // sum of a base file that was refused
	note     string         // see Host.Note
	offered  *Generation    // the newest, not looked at yet
	offers   *pendingOffers // the newest connection settings, not looked at yet
	results  results
	ignored  string      // what of the offer on trial is for nothing that the Collector has
	running  run         // of the last Retrieve
	wasReady bool        // any configuration has become ready in this process
	down     bool        // the service was taken down, and is not ready again
	partial  bool        // phaseStarting, but the service was not taken down: only receivers change, or it will be
	closing  bool        // the run ends in order
	fatal    error       // a component has ended the run
	outlived bool        // the run of fatal: its configuration is not the one that was given last
	asked    bool        // this run of the Collector has asked for a configuration
	failures []time.Time // of runs that nothing else was to blame for
	phase    phase
	deadline time.Time   // phaseStarting, and phaseReloading once the service is being taken down
	timer    *time.Timer // calls tick
	vigil    vigil
}

func newManager(path string) *Manager {
	m := &Manager{path: path, exec: ExecuteAgain, kill: killSelf, write: statefile.Write, wake: make(chan struct{}, 1), fired: make(chan struct{}), host: Host{
		Logger: zap.NewNop(), Report: func(Status) {}, ReportConnections: func(Status) {}, Note: func(string) {}, Reread: func() {},
		Starting: func() []string { return nil },
	}}
	close(m.fired)
	m.timer = time.AfterFunc(time.Hour, m.tick)
	m.timer.Stop()
	return m
}

// load reads what the last process has left, and decides what it means. Nothing is written yet, for `validate` does this
// too; but where it is certain that the Collector is to run, the marker of a running process is: a configuration with which
// it never gets as far as the extension's start must be counted, too. The caller holds mu.
func (m *Manager) load() {
	m.dir = m.base.local.Storage.Directory
	err := statefile.Peek(m.statePath(), &m.stored)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.damage, m.stored = err, stored{}
	}
	m.stored.boot(time.Now(), m.settings().CrashLoop, m.goodCounts())
	// A trial that ended in order starts anew, when the good configuration is ready: until then nobody would hear if it
	// could not even be read.
	if t, about := m.stored.Trial, m.stored.TrialOf; t != nil && m.stored.drop() {
		m.again(t, about)
	}
	if m.marks && m.damage == nil && m.stored.Good != nil {
		m.stored.Running = true
		m.unsaved = m.write(m.statePath(), m.stored) != nil // said when the extension starts
	}
	m.newUID, _ = uuid.NewV7() // without randomness the extension will say so
}

// NewInstanceUID is for an agent that needs a new one: the configuration names it already.
func (m *Manager) NewInstanceUID() uuid.UUID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.newUID
}

func (m *Manager) statePath() string { return filepath.Join(m.dir, stateFile) }

func (m *Manager) settings() Settings { return m.base.local.RemoteConfig }

// persist writes the state. The caller holds mu.
func (m *Manager) persist() error {
	if !m.attached {
		return nil
	}
	err := m.write(m.statePath(), m.stored)
	if m.unsaved = err != nil; m.unsaved {
		return fmt.Errorf("the state of the remote configuration cannot be kept: %w", err)
	}
	return nil
}

// save persists what could not be persisted when it was time to, or is not urgent.
func (m *Manager) save() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prove()
	if m.unsaved {
		_ = m.persist()
	}
}

// settle persists and reports. What is reported is true although it may not be on disk yet: see save. The caller holds mu.
func (m *Manager) settle() {
	if err := m.persist(); err != nil {
		m.host.Logger.Error("The state of the remote configuration is kept in memory only.", zap.Error(err))
	}
	m.report()
}

// report tells the server the last word on both subjects; it is sent only if it is new. The caller holds mu.
func (m *Manager) report() {
	m.host.Report(m.stored.Status)
	m.host.ReportConnections(m.stored.Connections)
}

// setNote keeps the note for the runs to come. The caller holds mu.
func (m *Manager) setNote(note string) {
	m.note = note
	m.host.Note(note)
}

// Attach is called when the extension starts. The first time in a process is the moment from which on a crash counts.
func (m *Manager) Attach(host Host) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.host = host
	if !m.attached {
		m.attached = true
		if m.damage != nil {
			err := statefile.Read(m.statePath(), &stored{})
			host.Logger.Error("The state of the remote configuration was damaged: the base file runs until the server sends a configuration again.", zap.Error(err))
		}
		m.stored.Running, m.unsaved = true, true
		m.deadline = time.Now().Add(m.settings().StartTimeout)
	}
	if m.unsaved {
		m.settle()
	}
	if m.stop == nil {
		m.stop = m.work()
	}
	if m.phase == phaseStarting {
		m.timer.Reset(time.Until(m.deadline))
	}
	host.Note(m.note)
	m.report()
}

// Detach is called when the extension is shut down; again says that the process will run the Collector again. failed is
// why it did not start, if it did not. It may not return: a Collector without a runner executes itself. An error is a
// component's fatal one, of which the Collector makes exit code 0.
func (m *Manager) Detach(again bool, failed string) error {
	m.mu.Lock()
	if m.runner && !m.closing {
		m.mu.Unlock()
		return nil // ended decides
	}
	switch {
	case m.fatal != nil && !m.outlived && !again:
		m.leave(StageHealth, m.fatal.Error())
	case m.phase == phaseStarting:
		m.leave(StageStart, failed)
	}
	if again {
		m.mu.Unlock()
		return nil
	}
	err, stop := m.fatal, m.finish()
	m.mu.Unlock()
	stop()
	return err
}

// Unstarted is Detach for a run in which the extension was not reached, because another one did not start. (A dry run does
// not start extensions either, but there is none before the first Attach.)
func (m *Manager) Unstarted(again bool, log *zap.Logger) error {
	m.mu.Lock()
	if first := !m.attached; m.runner || !again && !first {
		m.mu.Unlock()
		return nil
	} else if first {
		m.attached, m.host.Logger = true, log
	}
	m.mu.Unlock()
	return m.Detach(again, "an extension did not start; the log of the Collector has the error")
}

// finish is the end of the process in order; stop ends the goroutine. The caller holds mu.
func (m *Manager) finish() (stop func()) {
	m.timer.Stop()
	if m.stored.Running && !m.outlived { // else a crash: where configurations cannot be changed, that has to be counted
		m.stored.Running = false
		_ = m.persist()
	}
	stop, m.stop = m.stop, nil
	if stop == nil {
		return func() {}
	}
	return stop
}

// leave blames the configuration and executes the process again, if there is another one to run. It says whether there is
// one, and returns if that is left to the service manager. The caller holds mu.
func (m *Manager) leave(stage Stage, reason string) bool {
	if !m.blame(stage, reason) {
		return false
	}
	m.replace(stage, reason)
	return true
}

// replace executes the process again, unless it is to end. The caller holds mu.
func (m *Manager) replace(stage Stage, reason string) {
	m.phase = phaseReloading // what was blamed is not blamed again
	m.stored.Running = false
	_ = m.persist()
	if m.settings().OnFailedStart == OnFailedStartExit {
		return
	}
	m.host.Logger.Warn("Executing the Collector again, with another configuration.", zap.String("stage", string(stage)), zap.String("reason", reason))
	_ = m.host.Logger.Sync()
	m.host.Logger.Error("The Collector cannot be executed again: its service manager must start it.", zap.Error(m.exec()))
}

// Results are how many remote configurations were applied, and failed, in this process, and how long it took from the offer
// of the last good one until it ran.
func (m *Manager) Results() (applied, failed int64, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.results.applied, m.results.refused, m.results.took
}

// count counts a refusal. The caller holds mu.
func (m *Manager) count(about subject) {
	if about == aboutConfig {
		m.results.refused++
	}
}
