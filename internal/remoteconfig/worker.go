package remoteconfig

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
)

// watchEvery is how often the base file is looked at. It must look the same twice before it is read: an editor may be
// at work.
const watchEvery = time.Second

// Offer takes what the server sends; the newest one wins. It does not block.
func (m *Manager) Offer(g *Generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offered, m.results.came = g, time.Now()
	m.nudge()
}

// pendingOffers are connection settings as they came in.
type pendingOffers struct {
	hash     []byte
	settings *protobufs.ConnectionSettingsOffers
}

// OfferConnections takes settings for own telemetry and exporters; the newest ones win. It does not block.
func (m *Manager) OfferConnections(hash []byte, settings *protobufs.ConnectionSettingsOffers) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offers = &pendingOffers{hash, settings}
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
				for {
					g, about := m.take()
					if g == nil {
						break
					}
					m.consider(ctx, g, about)
				}
			case <-ticker.C:
				m.save()
				now, err := os.Stat(m.path)
				if err != nil { // being replaced, or gone: what runs, runs
					seen, settled = nil, nil
					continue
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

// take returns the newest offer as what would run with it, unless it has to wait: for Ready, or for the end of a trial that
// is about something else.
func (m *Manager) take() (*Generation, subject) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.base.local.Capabilities.AcceptsRemoteConfig {
		m.offered = nil
	}
	current := m.stored.current()
	waits := func(about subject) bool { return m.busy() || m.stored.Trial != nil && m.stored.TrialOf != about }
	if m.offered != nil && !waits(aboutConfig) {
		g := &Generation{Hash: m.offered.Hash, Files: m.offered.Files, Offers: current.offers()}
		m.offered = nil
		return g, aboutConfig
	}
	if m.offers != nil && !waits(aboutConnections) {
		pending := m.offers
		m.offers = nil
		offers, err := current.offers().updated(pending.hash, pending.settings)
		if err != nil {
			m.host.Logger.Error("Offered connection settings cannot be kept.", zap.Error(err))
			return nil, ""
		}
		return &Generation{Hash: current.hash(aboutConfig), Files: current.files(), Offers: offers}, aboutConnections
	}
	return nil, ""
}

// consider decides on an offer: known, refused, or on trial.
func (m *Manager) consider(ctx context.Context, g *Generation, about subject) {
	m.mu.Lock()
	if m.busy() {
		m.again(g, about)
	}
	if m.busy() || m.known(g, about) {
		m.mu.Unlock()
		return
	}
	b, checker := m.base, m.host.Checker
	m.mu.Unlock()

	merged, stage, err := m.check(ctx, checker, b, g)

	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case ctx.Err() != nil: // the process ends; the server will offer it again
	case m.busy() || m.base != b: // the Collector was reloaded meanwhile: once more
		m.again(g, about)
	case err != nil:
		m.refuse(g, about, stage, err)
	default:
		m.begin(g, about, merged)
	}
}

// again puts an offer back, unless there is a newer one. The caller holds mu.
func (m *Manager) again(g *Generation, about subject) {
	if about == aboutConfig && m.offered == nil {
		m.offered = g
	}
	if settings, err := g.offers().message(); about == aboutConnections && m.offers == nil && err == nil {
		m.offers = &pendingOffers{g.Offers.Hash, settings}
	}
}

// known answers an offer that needs no work. The caller holds mu.
func (m *Manager) known(g *Generation, about subject) bool {
	hash := g.hash(about)
	onTrial := m.stored.Trial != nil && m.stored.TrialOf == about
	if m.stored.current().is(about, hash) {
		word := Status{Hash: hash, Outcome: Applied}
		if onTrial {
			word.Outcome = Applying
		}
		m.repeat(about, word)
		return true
	}
	if onTrial && m.stored.Good.is(about, hash) { // that one needs no trial
		m.host.Logger.Info("Returning to the good remote configuration.", zap.String("about", string(about)), hashField(hash))
		m.stored.Trial, m.vigil.failing = nil, m.vigil.baseline
		*m.stored.status(about) = Status{Hash: hash, Outcome: Applying}
		m.settle()
		m.reload()
		return true
	}
	message, ok := m.stored.refused(about, hash)
	if ok {
		m.repeat(about, Status{Hash: hash, Outcome: Failed, Message: message})
	}
	return ok
}

// repeat says again what is known. A server that offers the same without end causes no writes; its lines in the log are
// sampled by the Collector. The caller holds mu.
func (m *Manager) repeat(about subject, s Status) {
	if s.Outcome == Failed {
		m.host.Logger.Warn("The server offers what is known to be bad.", zap.String("about", string(about)), hashField(s.Hash), zap.String("reason", s.Message))
	}
	last := m.stored.status(about)
	if bytes.Equal(last.Hash, s.Hash) && last.Outcome == s.Outcome {
		m.report()
		return
	}
	*last = s
	m.settle()
}

// refuse answers FAILED; what runs was not touched. The caller holds mu.
func (m *Manager) refuse(g *Generation, about subject, stage Stage, err error) {
	m.host.Logger.Error("The remote configuration is refused; the Collector goes on with the one that it runs.",
		zap.String("about", string(about)), hashField(g.hash(about)), zap.String("stage", string(stage)), zap.Error(err))
	m.stored.status(about).Hash = g.hash(about)
	m.count(about)
	m.stored.refuse(time.Now(), about, g.hash(about), stage, err.Error())
	m.tidy()
	m.settle()
}

// begin puts a configuration on trial. The marker is on disk before anything is touched: whatever happens from here on, the
// next process knows. The caller holds mu.
func (m *Manager) begin(g *Generation, about subject, merged *mergeResult) {
	if m.ignored = ""; about == aboutConnections && len(merged.ignored) > 0 {
		m.ignored = "ignored, for the Collector has no such thing: " + strings.Join(merged.ignored, ", ")
	}
	baseline := m.vigil.failing
	if m.stored.Trial != nil {
		baseline = m.vigil.baseline // the last configuration that was good had these
	}
	if err := writeFiles(&merged.files); err != nil { // once more: the end of the last trial may have tidied them away
		m.refuse(g, about, StageState, err)
		return
	}
	before := m.stored
	m.stored.try(g, about)
	if same := digest(merged.conf); same != "" && same == m.running.digest && before.Trial == nil {
		m.running.generation = g
		m.results.ran = time.Now()
		m.promote() // nothing changes, and so nothing is restarted
		return
	}
	if err := m.persist(); err != nil {
		m.stored = before
		m.refuse(g, about, StageState, err)
		return
	}
	m.vigil.baseline = baseline
	m.host.Logger.Info("Applying a remote configuration.", zap.String("about", string(about)), hashField(g.hash(about)))
	m.report()
	m.reload()
}

// lookAtBase applies a changed base file; it returns false when it must be asked again.
func (m *Manager) lookAtBase(ctx context.Context) bool {
	m.mu.Lock()
	busy, watching, accepted, badBase := m.busy(), m.settings().WatchBase, m.base, m.badBase
	checker := m.host.Checker
	m.mu.Unlock()
	if busy {
		return false
	}
	if !watching {
		return true
	}
	b, err := readBase(ctx, m.path)
	if err == nil && b.sum == badBase {
		return true
	}
	if err == nil && b.sum != accepted.sum {
		_, _, err = m.check(ctx, checker, b, m.current())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil || m.busy() || m.base != accepted {
		return false
	}
	if err != nil {
		m.refuseBase(b, err)
		return true
	}
	m.adopt(b)
	if m.base != accepted {
		m.reload()
	}
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
	checker := m.host.Checker
	m.mu.Unlock()
	if _, stage, err := m.check(ctx, checker, b, m.current()); err != nil {
		return fmt.Errorf("%s: %w", stage, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy() {
		return nil // it is being started anew just now
	}
	m.adopt(b)
	m.reload()
	return nil
}
