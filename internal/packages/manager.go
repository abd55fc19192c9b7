package packages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Name is the one package that is installed; a server may also leave its name empty.
const Name = "otelcol-collie"

// Options is what holds for the life of a Manager.
type Options struct {
	// Directory keeps the state file, packages.json; it is made when it is missing.
	Directory string
	// StagingDirectory is where a folder `packages` with mode 0700 is made for downloads. Empty means Directory.
	StagingDirectory string
	// Executable is what is replaced, usually os.Executable; symbolic links are followed. The process runs from it.
	Executable string
	// Version is of the running executable, as its --version prints it.
	Version string
	// PublicKeys are minisign's. Without any, each offer is refused.
	PublicKeys []string
	// AllowDowngrade accepts signed executables that are older than the running one.
	AllowDowngrade bool
	// Limits is usually DefaultLimits.
	Limits Limits
	// Transport downloads; nil means net/http's, with the environment's proxy.
	Transport http.RoundTripper
	// DryRun says whether a verified executable works here; usually Validate.
	DryRun DryRun
	// Changed is told the statuses when they have changed, one call at a time; it must not block. It is not called by Open.
	Changed func(*protobufs.PackageStatuses)
	Logger  *zap.Logger

	// step is called after each change on disk. Only a process that is killed there proves what this package promises, so
	// tests need to know where that is.
	step func()
}

// ErrNotOnTrial is returned for a verdict on an executable that is not on trial.
var ErrNotOnTrial = errors.New("no new executable is on trial")

// Manager installs what is offered. One goroutine, from Open to Close, owns the record and all files.
type Manager struct {
	opts      Options
	keys      keyring
	transport http.RoundTripper
	statePath string
	staging   string // folder of our own

	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{} // closed when the loop has ended
	wake     chan struct{} // capacity 1: there is an offer
	verdicts chan verdict
	restart  chan struct{} // capacity 1: the executable was replaced

	mu        sync.Mutex                   // guards what follows
	waiting   *protobufs.PackagesAvailable // the newest offer, until it is taken
	current   *protobufs.PackagesAvailable // the one that is being processed
	supersede context.CancelFunc           // ends its processing
	trial     bool                         // this executable is not confirmed yet
	statuses  *protobufs.PackageStatuses

	// Owned by the loop; by Open before.
	rec      record
	content  []byte    // SHA-256 of the executable that runs; nil when it cannot be read
	has      []byte    // its package hash; nil when no offer has installed it
	replaced bool      // the executable on disk is not the running one: the process must be restarted first
	retryAt  time.Time // the package that failed last is left alone until then
}

// verdict is the owner's on the executable on trial; a reason means that it failed.
type verdict struct {
	reason string
	done   chan error
}

// Open reads the state and finishes what a previous process has begun; see DESIGN.md. Afterwards OnTrial says whether this
// executable waits for Confirm or Fail, and Restart whether the old one was brought back and the process is to be restarted at
// once. Faults of the file system are reported in the statuses; an error is a mistake of the caller, or errors.ErrUnsupported.
func Open(opts Options) (*Manager, error) {
	if !supported {
		return nil, fmt.Errorf("a running executable cannot be replaced on this system: %w", errors.ErrUnsupported)
	}
	keys, err := parseKeys(opts.PublicKeys)
	if err != nil {
		return nil, err
	}
	if opts.Directory == "" || opts.Executable == "" || opts.Version == "" || opts.DryRun == nil || opts.Logger == nil || opts.Limits == (Limits{}) {
		return nil, errors.New("packages: Directory, Executable, Version, DryRun, Logger and Limits must be set")
	}
	if opts.Executable, err = filepath.EvalSymlinks(opts.Executable); err != nil {
		return nil, fmt.Errorf("packages: find the executable: %w", err)
	}
	if opts.StagingDirectory == "" {
		opts.StagingDirectory = opts.Directory
	}
	if opts.Changed == nil {
		opts.Changed = func(*protobufs.PackageStatuses) {}
	}
	if opts.step == nil {
		opts.step = func() {}
	}
	m := &Manager{
		opts: opts, keys: keys, transport: opts.Transport,
		statePath: filepath.Join(opts.Directory, "packages.json"), staging: filepath.Join(opts.StagingDirectory, "packages"),
		done: make(chan struct{}), wake: make(chan struct{}, 1), verdicts: make(chan verdict), restart: make(chan struct{}, 1),
	}
	if m.transport == nil {
		m.transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.recover()
	m.statuses = m.rec.build(m.opts.Version, m.has, nil)
	go m.run()
	return m, nil
}

// Offer takes what the server offers, in place of what it offered before. It never blocks. The offer must not be changed afterwards.
func (m *Manager) Offer(offer *protobufs.PackagesAvailable) {
	if offer == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting == nil && m.current != nil && proto.Equal(m.current, offer) {
		return // a server may repeat itself while a download runs
	}
	m.waiting = offer
	if m.supersede != nil {
		m.supersede()
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Statuses is all there is to report at this moment. It must not be changed.
func (m *Manager) Statuses() *protobufs.PackageStatuses {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses
}

// Restart gets a value when the executable on disk was replaced, by a new one or by the old one: the owner is to exec
// Options.Executable, or to end with an error so that a service manager starts it.
func (m *Manager) Restart() <-chan struct{} { return m.restart }

// OnTrial says whether this process runs a new executable that was neither confirmed nor failed.
func (m *Manager) OnTrial() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trial
}

// Confirm ends the trial: the new executable works. An error means that this could not be stored; it is still on trial then.
func (m *Manager) Confirm() error { return m.judge("") }

// Fail ends the trial: the old executable is brought back, and Restart gets a value. An error says why there is none.
func (m *Manager) Fail(reason string) error {
	if reason == "" {
		reason = "it failed"
	}
	return m.judge(reason)
}

func (m *Manager) judge(reason string) error {
	if !m.OnTrial() {
		return ErrNotOnTrial
	}
	v := verdict{reason: reason, done: make(chan error, 1)}
	select { // while an executable is on trial the loop does nothing else
	case m.verdicts <- v:
		return <-v.done
	case <-m.done:
		return context.Canceled
	}
}

// Close ends whatever runs and waits for it. A download is continued when it is offered again, to this process or the next.
func (m *Manager) Close() {
	m.cancel()
	<-m.done
	if own, ok := m.transport.(*http.Transport); ok {
		own.CloseIdleConnections()
	}
}

func (m *Manager) run() {
	defer close(m.done)
	for {
		select {
		case <-m.ctx.Done():
			return
		case v := <-m.verdicts:
			v.done <- m.end(v.reason)
		case <-m.wake:
		}
		for offer, ctx := m.next(); offer != nil; offer, ctx = m.next() {
			m.process(ctx, offer)
		}
	}
}

// next takes the waiting offer. While an executable is on trial, or has been replaced, it stays: the next process is offered it again.
func (m *Manager) next() (*protobufs.PackagesAvailable, context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.supersede != nil {
		m.supersede()
		m.supersede = nil
	}
	m.current = nil
	if m.waiting == nil || m.trial || m.replaced || m.ctx.Err() != nil {
		return nil, nil
	}
	m.current, m.waiting = m.waiting, nil
	ctx, cancel := context.WithCancel(m.ctx)
	m.supersede = cancel
	return m.current, ctx
}

// end acts on the owner's verdict.
func (m *Manager) end(reason string) error {
	if !m.trial { // two verdicts at once
		return ErrNotOnTrial
	}
	if reason != "" {
		return m.revert(reason)
	}
	before := m.rec
	m.rec.Has, m.rec.Replaced = m.rec.Offered, m.rec.Old
	m.rec.end(statusInstalled, "")
	if err := m.save(); err != nil {
		m.rec = before
		return err
	}
	m.setTrial(false)
	m.publish(nil)
	m.opts.Logger.Info("The new executable is confirmed.", zap.String("version", m.opts.Version))
	return nil
}

func (m *Manager) setTrial(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trial = on
}

// askRestart is called when the executable on disk is not the running one any more.
func (m *Manager) askRestart() {
	m.replaced = true
	select {
	case m.restart <- struct{}{}:
	default:
	}
}

// save persists the record.
func (m *Manager) save() error {
	err := writeRecord(m.statePath, &m.rec)
	m.opts.step()
	return err
}

// publish tells the owner when the statuses have changed.
func (m *Manager) publish(details *protobufs.PackageDownloadDetails) {
	next := m.rec.build(m.opts.Version, m.has, details)
	m.mu.Lock()
	same := m.statuses == nil /* Open has not returned */ || proto.Equal(m.statuses, next)
	m.statuses = next
	m.mu.Unlock()
	if !same {
		m.opts.Changed(next)
	}
}
