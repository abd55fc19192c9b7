package remoteconfig

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
)

// NotReady is called before the pipelines are taken down.
func (m *Manager) NotReady() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
}

// Ready is called when all pipelines run.
func (m *Manager) Ready() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready()
}

// ready is Ready; the caller holds mu.
func (m *Manager) ready() {
	m.wasReady, m.down, m.fallback, m.failures = true, false, nil, 0
	m.timer.Stop()
	if m.phase != phaseStarting {
		return // a reload was asked for meanwhile
	}
	m.phase = phaseIdle
	if m.onTrial() {
		m.phase, m.clean, m.dirty = phaseSoaking, time.Now(), time.Time{}
		m.judge()
	}
	m.nudge()
}

// onTrial says whether what runs is the configuration on trial. The caller holds mu.
func (m *Manager) onTrial() bool {
	return m.stored.Trial != nil && m.running.generation == m.stored.Trial
}

// Health takes all components that have an error now, by name.
func (m *Manager) Health(failing map[string]Problem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing = failing
	if m.phase == phaseSoaking {
		m.judge()
	}
}

// Fatal takes the error with which a component ends the run.
func (m *Manager) Fatal(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fatal = err
}

// tick is called by the timer.
func (m *Manager) tick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.phase == phaseSoaking:
		m.judge()
	case m.phase == phaseStarting && m.partial && !m.down:
		m.host.Reread()
		m.ready()
	case m.phase == phaseStarting && m.attached && !time.Now().Before(m.deadline):
		m.hung()
	}
}

// judge ends a trial when it is time to. Errors that components had before count for nothing: they are not the
// configuration's. The caller holds mu.
func (m *Manager) judge() {
	now := time.Now()
	name, problem := m.worst()
	switch {
	case name == "":
		m.dirty = time.Time{}
		if m.clean.IsZero() {
			m.clean = now
		}
		if left := m.settings().Soak - now.Sub(m.clean); left > 0 {
			m.timer.Reset(left)
			return
		}
		m.promote()
	case problem.Lasting:
		m.giveUp(name + ": " + problem.Err)
	default:
		m.clean = time.Time{}
		if m.dirty.IsZero() {
			m.dirty = now
		}
		if left := m.host.Grace - now.Sub(m.dirty); left > 0 {
			m.timer.Reset(left)
			return
		}
		m.giveUp(fmt.Sprintf("%s, for %v: %s", name, m.host.Grace, problem.Err))
	}
}

// worst is a component that has a problem which it did not have before the trial; a lasting one if there is one.
func (m *Manager) worst() (name string, worst Problem) {
	for _, n := range slices.Sorted(maps.Keys(m.failing)) {
		p := m.failing[n]
		if before, ok := m.baseline[n]; ok && (before.Lasting || !p.Lasting) {
			continue
		}
		if name == "" || p.Lasting && !worst.Lasting {
			name, worst = n, p
		}
	}
	return name, worst
}

// promote ends the trial well. The caller holds mu.
func (m *Manager) promote() {
	m.timer.Stop()
	m.phase = phaseIdle
	m.stored.promote(m.ignored)
	m.ignored = ""
	m.host.Logger.Info("The remote configuration is good.", zap.String("about", string(m.stored.TrialOf)), hashField(m.stored.Good.hash(m.stored.TrialOf)))
	m.tidy()
	m.settle()
	m.nudge()
}

// giveUp ends the trial of a configuration that runs: back to the one before. The caller holds mu.
func (m *Manager) giveUp(reason string) {
	m.host.Logger.Error("The remote configuration is bad: the Collector returns to the one before.", zap.String("reason", reason))
	m.stored.refuseTrial(time.Now(), StageHealth, reason)
	m.settle()
	m.reload()
}

// hung is for a start that does not end: nothing but a new process helps. The caller holds mu.
func (m *Manager) hung() {
	reason := fmt.Sprintf("not ready within %v: a component hangs while it starts", m.settings().StartTimeout)
	m.host.Logger.Error("The Collector does not become ready.", zap.String("reason", reason))
	m.leave(StageStart, reason)
}

// mostFailures is how often the base file alone is tried again in a process in which it has run before.
const mostFailures = 3

// blame draws the consequence of a configuration that did not start, or has ended its run, and says whether there is
// something else to try. The caller holds mu.
func (m *Manager) blame(stage Stage, reason string) (again bool) {
	now := time.Now()
	switch {
	case m.onTrial():
		m.stored.refuseTrial(now, stage, reason)
	case m.fallback != nil:
		m.refuseBase(m.base, fmt.Errorf("%s: %s", stage, reason))
		m.base, m.fallback = m.fallback, nil
	case m.running.generation != nil:
		m.stored.crashed(now, m.settings().CrashLoop, string(stage)+": "+reason)
	default:
		m.failures++
		return m.wasReady && m.failures < mostFailures
	}
	m.host.Logger.Error("A configuration failed.", zap.String("stage", string(stage)), zap.String("reason", reason))
	m.settle()
	return true
}
