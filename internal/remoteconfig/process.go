package remoteconfig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/otelcol"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/reload"
)

// current is the one manager of this process. It lives here because a Collector builds extensions anew at each reload and
// providers at each run, and because the provider, the extension and the runner have nothing else in common.
var current = struct {
	mu        sync.Mutex // guards all below
	manager   *Manager
	runner    bool
	factories func() (otelcol.Factories, error)
}{}

// Open returns the manager of a base file, which it makes the first time.
func Open(path string) (*Manager, error) {
	current.mu.Lock()
	defer current.mu.Unlock()
	if m := current.manager; m != nil {
		if m.path != path {
			return nil, fmt.Errorf("the scheme opamp: is for one file: %s is in use, and %s was asked for", m.path, path)
		}
		return m, nil
	}
	current.manager = newManager(path)
	current.manager.runner, current.manager.marks = current.runner, startsCollector(os.Args[1:])
	return current.manager, nil
}

// startsCollector says whether a command line with a configuration of ours runs the Collector, and does not just look at the
// configuration.
func startsCollector(args []string) bool {
	ours := func(uri string) bool { return strings.HasPrefix(uri, dryrun.Scheme+":") }
	looks := func(arg string) bool { return arg == "validate" || arg == "print-config" || arg == "components" }
	return slices.ContainsFunc(dryrun.URIs(args), ours) && !slices.ContainsFunc(args, looks)
}

// Current is the manager of this process; nil when remote configuration has not been asked for.
func Current() *Manager {
	current.mu.Lock()
	defer current.mu.Unlock()
	return current.manager
}

// Factories makes the Collector's factories anew; nil when this process has another main than otelcol-collie's.
func Factories() func() (otelcol.Factories, error) {
	current.mu.Lock()
	defer current.mu.Unlock()
	return current.factories
}

// IsFor says whether this is the extension that the base file names; any other one has nothing to do with the Manager.
func (m *Manager) IsFor(id component.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.base != nil && m.base.isFor(id)
}

// again is the pause before a configuration that has failed is tried once more.
const again = time.Second

// Run runs a Collector, and runs it again in the same process when a configuration does not start or ends itself, as long
// as there is another one to try. It returns what the last run returned; a component's fatal error, which the Collector
// does not return, is returned too.
//
// factories are those of the Collector; dry runs make them anew each time.
func Run(factories func() (otelcol.Factories, error), collector func() error) error {
	current.mu.Lock()
	current.runner, current.factories = true, factories
	current.mu.Unlock()
	for {
		err := collector()
		m := Current()
		if m == nil {
			return err
		}
		retry, wait, err := m.ended(err)
		if !retry {
			return err
		}
		time.Sleep(wait)
	}
}

// ended decides what follows on the end of a run.
func (m *Manager) ended(err error) (retry bool, wait time.Duration, _ error) {
	m.mu.Lock()
	retry, wait, err = m.decide(err)
	stop := func() {}
	if !retry {
		stop = m.finish()
	}
	m.mu.Unlock()
	stop()
	return retry, wait, err
}

// decide is ended; the caller holds mu.
func (m *Manager) decide(err error) (retry bool, wait time.Duration, _ error) {
	if m.closing || err == nil && m.fatal == nil {
		return false, 0, err
	}
	stage, outlived, asked := StageStart, m.outlived, m.asked
	switch {
	case m.phase == phaseStarting && outlived:
		outlived = false // it has not come to that: the new one did not start
	case m.fatal != nil:
		stage, err = StageHealth, errors.Join(err, m.fatal)
	}
	m.watch, m.fatal, m.outlived, m.asked = nil, nil, false, false
	switch {
	case m.base == nil:
		return false, 0, err // it has not been read yet
	case !asked: // something beside it cannot be read: a second file, say
		return m.wasReady && m.failed(time.Now()), again, err
	case outlived || m.phase == phaseReloading:
		m.host.Logger.Error("The old configuration did not end well; the new one is started.", zap.Error(err))
		return true, 0, nil
	}
	running := m.running.generation
	if !m.blame(stage, err.Error()) {
		return false, 0, err
	}
	if m.stored.current() == running {
		wait = again // the same once more
	}
	return true, wait, nil
}

// watcherLimit is how long the end of a run waits for a watcher that was called. It blocks while the Collector has not taken
// the last event, and is let go by the end then.
const watcherLimit = 100 * time.Millisecond

// Closing is called when a run ends in order, before the service is shut down.
func (m *Manager) Closing() {
	m.mu.Lock()
	fired := m.fired
	m.watch = nil
	m.mu.Unlock()
	select { // the Collector closes the channel that the watcher sends to
	case <-fired:
	case <-time.After(watcherLimit):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closing = m.fatal == nil
	if m.runner {
		reload.Expect(!m.closing)
	}
}

// source is where the whole configuration comes from when the base file is replaced by a candidate.
func (m *Manager) source(candidate map[string]any) dryrun.Source {
	uris := dryrun.URIs(os.Args[1:])
	if len(uris) == 0 {
		uris = []string{dryrun.Scheme + ":" + m.path}
	}
	return dryrun.Source{URIs: uris, Candidate: candidate}
}

// Running is what runs, resolved once more.
func (m *Manager) Running(ctx context.Context) (*dryrun.Result, error) {
	m.mu.Lock()
	b, g, checker := m.base, m.running.generation, m.host.Checker
	m.mu.Unlock()
	merged, err := m.merge(b, g)
	if err != nil {
		return nil, err
	}
	return checker.Resolve(ctx, m.source(merged.conf))
}

// Preview is what a configuration would come to if it were offered; nothing changes.
func (m *Manager) Preview(ctx context.Context, g *Generation) (effective *dryrun.Result, stage Stage, err error) {
	m.mu.Lock()
	b, checker := m.base, m.host.Checker
	g = &Generation{Hash: g.Hash, Files: g.Files, Offers: m.stored.current().offers()}
	m.mu.Unlock()
	merged, stage, err := m.check(ctx, checker, b, g)
	if err != nil {
		return nil, stage, err
	}
	return merged.resolved, "", nil
}

// killSelf is for a process that nothing else can end.
func killSelf() error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	return self.Kill()
}
