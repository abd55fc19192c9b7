package remoteconfig

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"
)

// watchEvery is how often the base file is looked at. It must look the same twice before it is read: an editor may be
// at work.
const watchEvery = time.Second

// Offer takes what the server sends; the newest one wins. It does not block.
func (m *Manager) Offer(g *Generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offered = g
	m.nudge()
}

// nudge wakes the worker.
func (m *Manager) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// work starts the goroutine that makes the checks; stop ends it and waits for it.
func (m *Manager) work() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		var seen, settled fs.FileInfo
		for {
			select {
			case <-ctx.Done():
				return
			case <-m.wake:
				if g := m.take(); g != nil {
					m.consider(ctx, g)
				}
			case <-ticker.C:
				now, err := os.Stat(m.path)
				if err != nil {
					continue // being replaced, or gone: what runs, runs
				}
				if same(now, seen) && !same(now, settled) && m.lookAtBase(ctx) {
					settled = now
				}
				seen = now
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func same(a, b fs.FileInfo) bool {
	return a != nil && b != nil && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

// busy says whether the Collector is between two configurations: whatever comes in waits until it is ready. The caller holds mu.
func (m *Manager) busy() bool { return m.phase == phaseReloading || m.phase == phaseStarting }

// take returns the newest offer, unless it has to wait; Ready asks again.
func (m *Manager) take() *Generation {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy() {
		return nil
	}
	g := m.offered
	m.offered = nil
	return g
}

// consider decides on an offer: known, refused, or on trial.
func (m *Manager) consider(ctx context.Context, g *Generation) {
	m.mu.Lock()
	if m.known(g) {
		m.mu.Unlock()
		return
	}
	b, checker := m.base, m.host.Checker
	m.mu.Unlock()

	merged, stage, err := m.check(ctx, checker, b, g)

	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.refuse(g, stage, err)
		return
	}
	if m.busy() || m.base != b {
		m.offered = g // the Collector was reloaded meanwhile: once more
		return
	}
	m.begin(g, merged)
}

// known answers an offer that needs no work. The caller holds mu.
func (m *Manager) known(g *Generation) bool {
	if current := m.stored.current(); current.is(g.Hash) {
		if current == m.stored.Good {
			m.repeat(Status{Hash: g.Hash, Outcome: Applied})
		}
		return true
	}
	message, ok := m.stored.refused(g.Hash)
	if ok {
		m.host.Logger.Warn("The server offers a remote configuration that is known to be bad.", hashField(g.Hash), zap.String("reason", message))
		m.repeat(Status{Hash: g.Hash, Outcome: Failed, Message: message})
	}
	return ok
}

// repeat says again what is known. A server that offers the same configuration without end causes no writes. The caller holds mu.
func (m *Manager) repeat(s Status) {
	if last := m.stored.Status; bytes.Equal(last.Hash, s.Hash) && last.Outcome == s.Outcome && last.Message == s.Message {
		m.host.Report(s)
		return
	}
	m.stored.Status = s
	m.settle()
}

// refuse answers FAILED; what runs was not touched. The caller holds mu.
func (m *Manager) refuse(g *Generation, stage Stage, err error) {
	m.host.Logger.Error("The remote configuration is refused; the Collector goes on with the one that it runs.",
		hashField(g.Hash), zap.String("stage", string(stage)), zap.Error(err))
	m.stored.refuse(time.Now(), g.Hash, stage, err.Error())
	m.settle()
}

// begin puts a configuration on trial. The marker is on disk before anything is touched: whatever happens from here on, the
// next process knows. The caller holds mu.
func (m *Manager) begin(g *Generation, merged map[string]any) {
	baseline := m.failing
	if m.stored.Trial != nil {
		baseline = m.baseline // the last configuration that was good had these
	}
	before := m.stored
	m.stored.try(g)
	if same := digest(merged); same != "" && same == m.running.digest && before.Trial == nil {
		m.running.generation = g
		m.promote() // nothing changes, and so nothing is restarted
		return
	}
	if err := m.persist(); err != nil {
		m.stored = before
		m.refuse(g, StageState, err)
		return
	}
	m.baseline = baseline
	m.host.Logger.Info("Applying a remote configuration.", hashField(g.Hash))
	m.host.Report(m.stored.Status)
	m.reload()
}

// lookAtBase applies a changed base file; it returns false when it must be asked again.
func (m *Manager) lookAtBase(ctx context.Context) bool {
	m.mu.Lock()
	busy, watching, accepted, badBase := m.busy(), m.settings().WatchBase, m.base, m.badBase
	generation, checker := m.stored.current(), m.host.Checker
	m.mu.Unlock()
	if busy {
		return false
	}
	if !watching {
		return true
	}
	b, err := readBase(ctx, m.path)
	if err == nil && (b.sum == accepted.sum || b.sum == badBase) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.sameBase(b)
		return true
	}
	if err == nil {
		_, _, err = m.check(ctx, checker, b, generation)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy() || m.base != accepted {
		return false
	}
	if err != nil {
		m.refuseBase(b, err)
		return true
	}
	m.host.Logger.Info("The base configuration has changed.", zap.String("file", m.path))
	m.takeBase(b)
	m.reload()
	return true
}

// Reload checks the configuration as it is on disk, and has the Collector start anew with it: a restart command. An error
// says that nothing was touched.
func (m *Manager) Reload(ctx context.Context) error {
	b, err := readBase(ctx, m.path)
	if err != nil {
		return err
	}
	m.mu.Lock()
	generation, checker := m.stored.current(), m.host.Checker
	m.mu.Unlock()
	if _, stage, err := m.check(ctx, checker, b, generation); err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy() {
		return nil // it is being started anew just now
	}
	if b.sum == m.base.sum {
		m.forgive()
	} else {
		m.takeBase(b)
	}
	m.reload()
	return nil
}
