package remoteconfig

import (
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
)

// NotReady is called before the pipelines are taken down.
func (m *Manager) NotReady() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	m.timer.Stop()
	if m.fatal == nil && !m.busy() {
		m.phase = phaseReloading // offers wait, and so does a verdict
	}
	if m.busy() && !m.closing {
		m.deadline = time.Now().Add(m.settings().StopTimeout)
		m.timer.Reset(m.settings().StopTimeout)
	}
}

// Ready is called when all pipelines run.
func (m *Manager) Ready() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready()
}

// ready is Ready; the caller holds mu.
func (m *Manager) ready() {
	m.wasReady, m.running.ready, m.down, m.fallback = true, time.Now(), false, nil
	m.timer.Stop()
	if m.phase != phaseStarting {
		return // a reload was asked for meanwhile
	}
	m.phase = phaseIdle
	if m.results.ran = time.Now(); m.onTrial() {
		m.phase = phaseSoaking
		m.vigil.begin(m.results.ran)
		m.judge()
	}
	if m.stored.arrive() {
		m.settle()
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
	m.vigil.failing = failing
	if m.phase == phaseSoaking && !m.down {
		m.judge()
	}
}

// Fatal takes the error with which a component ends the run. One that calls its own end an error changes nothing.
func (m *Manager) Fatal(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closing {
		m.fatal, m.outlived = err, false
	}
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
	case time.Now().Before(m.deadline) || !m.attached:
	case m.phase == phaseStarting:
		m.hung()
	case m.phase == phaseReloading && m.down:
		m.stuck()
	}
}

// judge ends a trial when it is time to. The caller holds mu.
func (m *Manager) judge() {
	again, wrong := m.vigil.judge(time.Now(), m.settings().Soak, m.host.Grace)
	switch {
	case wrong != "":
		m.giveUp(wrong)
	case again > 0:
		m.timer.Reset(again)
	default:
		m.promote()
	}
}

// promote ends the trial well. The caller holds mu.
func (m *Manager) promote() {
	m.timer.Stop()
	m.phase = phaseIdle
	m.stored.promote(m.ignored)
	m.stored.Base = m.base.checksum()
	m.ignored = ""
	if m.stored.TrialOf == aboutConfig {
		m.results.applied, m.results.took = m.results.applied+1, m.results.ran.Sub(m.results.came)
	}
	m.host.Logger.Info("The remote configuration is good.", zap.String("about", string(m.stored.TrialOf)), hashField(m.stored.Good.hash(m.stored.TrialOf)))
	m.tidy()
	m.settle()
	m.nudge()
}

// giveUp ends the trial of a configuration that runs: back to the one before. The caller holds mu.
func (m *Manager) giveUp(reason string) {
	m.host.Logger.Error("The remote configuration is bad: the Collector returns to the one before.", zap.String("reason", reason))
	m.refuseTrial(StageHealth, reason)
	m.settle()
	m.reload()
}

// refuseTrial ends a trial badly: its errors are not those of what runs next. The caller holds mu.
func (m *Manager) refuseTrial(stage Stage, reason string) {
	m.count(m.stored.TrialOf)
	m.stored.refuseTrial(time.Now(), stage, reason)
	m.vigil.failing = m.vigil.baseline
}

// hung is for a start that does not end: nothing but a new process helps. The caller holds mu.
func (m *Manager) hung() {
	who := strings.Join(m.host.Starting(), ", ")
	if who == "" {
		who = "a component"
	}
	reason := fmt.Sprintf("not ready within %v: %s hangs while it starts", m.settings().StartTimeout, who)
	m.host.Logger.Error("The Collector does not become ready.", zap.String("reason", reason))
	if m.leave(StageStart, reason) {
		m.end()
	}
}

// stuck is for a configuration that does not end when another one is to take its place. The one on trial cannot be tried
// then, and is refused; the process begins anew with what was good. The caller holds mu.
func (m *Manager) stuck() {
	reason := fmt.Sprintf("the configuration before has not ended within %v: a component hangs while it is shut down", m.settings().StopTimeout)
	m.host.Logger.Error("The Collector does not take down its service.", zap.String("reason", reason))
	if m.stored.Trial != nil {
		m.refuseTrial(StageStart, reason)
		m.settle()
	}
	m.replace(StageStart, reason)
	m.end()
}

// end kills a process that hangs, and was not replaced: it would not end by itself. The caller holds mu.
func (m *Manager) end() {
	m.host.Logger.Error("A process that hangs does not end by itself, and is killed.")
	_ = m.host.Logger.Sync()
	if err := m.kill(); err != nil {
		m.host.Logger.Error("The process cannot be killed.", zap.Error(err))
	}
}

// prove takes note of the base file with which the good configuration has run for the time of a soak. The caller holds mu.
func (m *Manager) prove() {
	if m.phase != phaseIdle || m.stored.Good == nil || m.running.generation != m.stored.Good || time.Since(m.running.ready) < m.settings().Soak {
		return
	}
	if sum := m.base.checksum(); m.stored.Base != sum {
		m.stored.Base, m.unsaved = sum, true
	}
}

// goodCounts says whether the good configuration is to blame for what happens: not where it is not accepted, nor with another
// base file than the one with which it has run last. The caller holds mu.
func (m *Manager) goodCounts() bool {
	return m.base.local.Capabilities.AcceptsRemoteConfig && m.stored.Base == m.base.checksum()
}

// mostFailures is how many runs may fail that nothing is to blame for, such as those of the base file alone, within the time
// of a crash loop, until the process ends.
const mostFailures = 3

// failed counts such a run, and says whether there may be another one. The caller holds mu.
func (m *Manager) failed(now time.Time) bool {
	m.failures = append(recent(m.failures, now, m.settings().CrashLoop.Within), now)
	return len(m.failures) < mostFailures
}

// blame draws the consequence of a configuration that did not start, or has ended its run, and says whether there is
// something else to try. The caller holds mu.
func (m *Manager) blame(stage Stage, reason string) (again bool) {
	now := time.Now()
	switch {
	case m.fallback != nil: // what ran before, ran with that one
		m.refuseBase(m.base, fmt.Errorf("%s: %s", stage, reason))
		m.base, m.fallback = m.fallback, nil
	case m.onTrial():
		m.refuseTrial(stage, reason)
	case m.running.generation == nil, m.running.generation == m.stored.Good && !m.goodCounts():
		return m.runner && m.wasReady && m.failed(now)
	case m.running.generation == m.stored.Good:
		m.stored.crashed(now, m.settings().CrashLoop, string(stage)+": "+reason)
	}
	m.host.Logger.Error("A configuration failed.", zap.String("stage", string(stage)), zap.String("reason", reason))
	m.settle()
	return true
}
