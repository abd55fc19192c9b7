package remoteconfig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/confmap"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/overlay"
	"github.com/collie-otel/collie/internal/reload"
)

// Retrieve answers the Collector which configuration it shall run. It writes nothing: `validate` and `print-config` call it too.
func (m *Manager) Retrieve(ctx context.Context, watch confmap.WatcherFunc) (*confmap.Retrieved, error) {
	changed, err := m.reread(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.base == nil && err != nil:
		return nil, err
	case m.base == nil:
		m.base = changed
		m.load()
	case err != nil:
		m.refuseBase(changed, err)
	case changed != nil:
		m.adopt(changed)
	}
	merged, generation, err := m.choose()
	if err != nil {
		return nil, err
	}
	m.running = run{generation: generation, digest: digest(merged)}
	m.phase, m.asked, m.closing, m.watch = phaseStarting, true, false, watch
	m.outlived = m.fatal != nil // the Collector has not heard of it yet, and will end this run for it
	if m.runner {
		reload.Expect(true) // until Closing says otherwise
	}
	m.partial = m.wasReady && !m.down
	if m.onTrial() {
		m.vigil.failing = nil // it is not told of errors of the run before
	}
	if m.attached {
		limit := m.settings().StartTimeout
		if m.partial {
			limit = partialLimit
		}
		m.deadline = time.Now().Add(limit)
		m.timer.Reset(limit)
	}
	return confmap.NewRetrieved(merged, confmap.WithRetrievedClose(m.unwatch))
}

// partialLimit is how long the Collector gets to take the service down after all, if it cannot change receivers alone
// (feature gate service.partialReload). It tells nobody when it can.
const partialLimit = time.Second

// reread reads the base file. Of a Collector that runs already it checks a changed one: the service is down at this moment,
// and must come back whatever the file says. It returns nil when the file is to stay as it was read before.
func (m *Manager) reread(ctx context.Context) (*base, error) {
	m.mu.Lock()
	accepted, badBase, checked, checker := m.base, m.badBase, m.attached, m.host.Checker
	// One change at a time: else nobody could tell which of two is bad.
	untried := m.fallback != nil || m.stored.Trial != nil && !(m.onTrial() && !m.running.ready.IsZero())
	m.mu.Unlock()
	if accepted != nil && untried {
		return nil, nil
	}
	b, err := readBase(ctx, m.path)
	if accepted == nil || err != nil || b.sum == accepted.sum {
		return b, err
	}
	if b.sum == badBase {
		return nil, nil
	}
	if checked {
		_, _, err = m.check(ctx, checker, b, m.current())
	}
	return b, err
}

// adopt takes a base file that has passed the checks, or is the accepted one again. The caller holds mu.
func (m *Manager) adopt(b *base) {
	if b.sum != m.base.sum {
		m.host.Logger.Info("The base configuration has changed.", zap.String("file", m.path))
		m.fallback, m.base = m.base, b
	}
	m.badBase = [sha256.Size]byte{}
	if m.note != "" {
		m.host.Logger.Info("The base configuration is no longer refused.", zap.String("file", m.path))
		m.setNote("")
	}
}

// current is what is to run.
func (m *Manager) current() *Generation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored.current()
}

// refuseBase goes on with the base file that was accepted before, and says so. The caller holds mu.
func (m *Manager) refuseBase(b *base, err error) {
	if b != nil {
		m.badBase = b.sum
	}
	m.host.Logger.Error("The changed base configuration is refused: the Collector keeps the one that it runs.", zap.String("file", m.path), zap.Error(err))
	m.setNote(fmt.Sprintf("the changed file %s is refused: %v", m.path, err))
}

// choose merges what is to run. A configuration that this base file forbids, or that cannot be merged with it, is left for
// the one before it. The caller holds mu.
func (m *Manager) choose() (map[string]any, *Generation, error) {
	if !m.base.local.Capabilities.AcceptsRemoteConfig && m.stored.Trial != nil && m.stored.TrialOf == aboutConfig {
		m.stored.drop()
		m.unsaved = true
	}
	for {
		g := m.stored.current()
		merged, stage, err := m.combine(m.base, g, m.aliases)
		if err == nil {
			return merged.conf, g, nil
		}
		if g == nil {
			return nil, nil, err
		}
		m.unsaved = true // until the extension starts: this may be `validate`
		if m.stored.Trial != nil {
			m.refuseTrial(stage, err.Error())
		} else {
			m.stored.demote(time.Now(), stage, err.Error())
		}
	}
}

// digest tells two merged configurations apart.
func digest(merged map[string]any) string {
	content, err := yaml.Marshal(merged)
	if err != nil {
		return "" // equal to none
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// combine merges what the local policy allows. Without a Collector that runs there are no aliases.
func (m *Manager) combine(b *base, g *Generation, aliases func(kind, name string) []string) (*mergeResult, Stage, error) {
	remote, err := overlay.Remote(b.remote(g))
	if err != nil {
		return nil, StageMerge, err
	}
	if errs := b.local.RemoteConfig.policy(aliases).Check(remote); len(errs) > 0 {
		return nil, StagePolicy, errors.Join(errs...)
	}
	if id := b.secondAgent(remote); id != "" {
		return nil, StagePolicy, fmt.Errorf("extensions::%s: a second OpAMP extension, beside %s of the base file", id, b.extension)
	}
	merged, err := m.merge(b, g)
	return merged, StageMerge, err
}

// aliases are those that the last run knew. The caller holds mu.
func (m *Manager) aliases(kind, name string) []string {
	if m.host.Checker == nil {
		return nil
	}
	return m.host.Checker.Aliases(kind, name)
}

// check passes a configuration through policy, merge and dry run, and says where it failed. Files that it refers to are
// on disk afterwards.
func (m *Manager) check(ctx context.Context, checker Checker, b *base, g *Generation) (*mergeResult, Stage, error) {
	merged, stage, err := m.combine(b, g, checker.Aliases)
	if err != nil {
		return nil, stage, err
	}
	if err := writeFiles(&merged.files); err != nil {
		return nil, StageState, err
	}
	if merged.resolved, err = checker.Check(ctx, m.source(merged.conf)); err != nil {
		return nil, StageDryRun, err
	}
	return merged, "", nil
}

// unwatch is called before the next Retrieve, and when the Collector ends: the watcher must not be called any more.
func (m *Manager) unwatch(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watch = nil
	return nil
}

// reload has the Collector retrieve its configuration again. Between two runs nobody needs to be told. The caller holds mu.
func (m *Manager) reload() {
	m.phase = phaseReloading
	m.timer.Stop()
	watch := m.watch
	m.watch = nil // once per Retrieve
	if watch == nil {
		return
	}
	fired := make(chan struct{})
	m.fired = fired
	go func() {
		defer close(fired)
		// The Collector closes its channel when it ends, which cannot be seen from here; a send that comes just then panics.
		defer func() { _ = recover() }()
		watch(&confmap.ChangeEvent{})
	}()
}
