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

	"github.com/collie-otel/collie/internal/dryrun"
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
		m.takeBase(changed)
	}
	merged, generation, err := m.choose()
	if err != nil {
		return nil, err
	}
	m.running = run{generation: generation, digest: digest(merged)}
	m.phase, m.fatal, m.closing, m.watch = phaseStarting, nil, false, watch
	if m.runner {
		reload.Expect(true) // until Closing says otherwise
	}
	m.partial = m.wasReady && !m.down
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

// reread reads the base file. Of a Collector that runs already it returns only a changed one, and checks it: the service
// is down at this moment, and must come back whatever the file says.
func (m *Manager) reread(ctx context.Context) (changed *base, err error) {
	m.mu.Lock()
	accepted, generation, checker := m.base, m.stored.current(), m.host.Checker
	badBase, checked := m.badBase, m.attached
	m.mu.Unlock()
	b, err := readBase(ctx, m.path)
	if accepted == nil || err != nil {
		return b, err
	}
	if b.sum == accepted.sum || b.sum == badBase {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sameBase(b)
		return nil, nil
	}
	if checked {
		_, _, err = m.check(ctx, checker, b, generation)
	}
	return b, err
}

// refuseBase goes on with the base file that was accepted before, and says so. The caller holds mu.
func (m *Manager) refuseBase(b *base, err error) {
	if b != nil {
		m.badBase = b.sum
	}
	m.host.Logger.Error("The changed base configuration is refused: the Collector keeps the one that it runs.", zap.String("file", m.path), zap.Error(err))
	m.setNote(fmt.Sprintf("the changed file %s is refused: %v", m.path, err))
}

// takeBase runs a changed base file next; it is given up if it does not start. The caller holds mu.
func (m *Manager) takeBase(b *base) {
	m.fallback, m.base = m.base, b
	m.forgive()
}

// sameBase is for a file that needs no decision: it is the refused one, or again the one that runs. The caller holds mu.
func (m *Manager) sameBase(b *base) {
	if b.sum == m.base.sum {
		m.forgive()
	}
}

// forgive takes back what was said of a refused base file, which is no longer there. The caller holds mu.
func (m *Manager) forgive() {
	m.badBase = [32]byte{}
	if m.note != "" {
		m.host.Logger.Info("The base configuration is no longer refused.", zap.String("file", m.path))
		m.setNote("")
	}
}

// choose merges what is to run. A configuration that cannot be merged with this base file is left for the one before it.
// The caller holds mu.
func (m *Manager) choose() (map[string]any, *Generation, error) {
	for {
		g := m.stored.current()
		merged, err := m.merge(m.base, g)
		if err == nil {
			return merged.conf, g, nil
		}
		if g == nil {
			return nil, nil, err
		}
		if m.stored.Trial != nil {
			m.stored.refuseTrial(time.Now(), StageMerge, err.Error())
		} else {
			m.stored.demote(time.Now(), StageMerge, err.Error())
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

// check passes a configuration through policy, merge and dry run, and says where it failed. Files that it refers to are
// on disk afterwards.
func (m *Manager) check(ctx context.Context, checker dryrun.Checker, b *base, g *Generation) (*mergeResult, Stage, error) {
	aliases := func(kind, name string) []string { return dryrun.Aliases(checker.Factories, kind, name) }
	remote, err := overlay.Remote(g.files())
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
	if err != nil {
		return nil, StageMerge, err
	}
	if err := writeFiles(&merged.files); err != nil {
		return nil, StageState, err
	}
	if _, err := checker.Check(ctx, m.source(merged.conf)); err != nil {
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
	go func() {
		// The Collector closes its channel when it ends, which cannot be seen from here; a send that comes just then panics.
		defer func() { _ = recover() }()
		watch(&confmap.ChangeEvent{})
	}()
}
