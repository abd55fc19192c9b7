package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/statefile"
)

// recover finds out how the previous process has ended, and finishes what it has begun. The state file only says what may
// have happened; the executable's content says what has.
func (m *Manager) recover() {
	log := m.opts.Logger
	var err error
	if m.rec, err = readRecord(m.statePath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("The state of packages is lost.", zap.Error(err))
	}
	if m.content, err = hashFile(m.ctx, m.opts.Executable); err != nil {
		log.Error("The executable cannot be read.", zap.Error(err))
	}
	if m.rec.Has != nil && bytes.Equal(m.rec.Has.Content, m.content) {
		m.has = m.rec.Has.Hash
	}
	isNew := m.rec.Offered != nil && m.content != nil && bytes.Equal(m.content, m.rec.Offered.Content)
	isOld := m.content != nil && bytes.Equal(m.content, m.rec.Old)
	switch stage := m.rec.Stage; {
	case stage == idle:
	case stage == downloading || stage == checking || stage == swapping && isOld:
		m.interrupted()
	case stage == swapping && isNew:
		m.startTrial()
	case stage == reverting && isNew:
		m.has = m.rec.Offered.Hash
		_ = m.revert(m.rec.Reason)
	case stage == reverting && isOld:
		m.reverted()
	default:
		m.lose(fmt.Sprintf("while it was installed the executable was replaced by something else, or became unreadable (it was %s)", stage))
	}
	if m.rec.Stage == idle {
		_ = os.Remove(m.beside("new")) // left by a process that was killed
	}
	_ = os.Remove(m.beside("previous"))
}

// interrupted waits for the package to be offered again: where it comes from was not stored, since that may hold secrets.
// Without the hash of all packages the server sees that it has to.
func (m *Manager) interrupted() {
	_ = os.Remove(m.beside("new"))
	m.rec.AllHash = nil
	m.rec.Status, m.rec.Error = statusPending, "interrupted by a restart; continues when it is offered again"
}

// lose gives up on a package whose executable is neither there nor to be undone.
func (m *Manager) lose(why string) {
	m.rec.end(statusFailed, why)
	if err := m.save(); err != nil {
		m.opts.Logger.Error("The state of packages cannot be stored.", zap.Error(err))
	}
}

// startTrial counts the starts of an executable that is not confirmed, before anything else. The first may go on; the second
// means that the first has ended without a verdict. A start that cannot be counted is not made.
func (m *Manager) startTrial() {
	m.has = m.rec.Offered.Hash
	m.rec.Starts++
	err := m.save()
	switch {
	case m.rec.Starts > 1:
		_ = m.revert("the process ended before the new executable was confirmed")
	case err != nil:
		_ = m.revert(fmt.Sprintf("the start of the new executable cannot be recorded: %v", err))
	default:
		m.setTrial(true)
		m.opts.Logger.Info("A new executable is on trial.", zap.String("version", m.opts.Version))
	}
}

// revert brings the old executable back and asks for a restart. When there is none, the new one stays, and the error says so.
func (m *Manager) revert(reason string) error {
	m.rec.Stage, m.rec.Reason = reverting, reason
	if err := m.save(); err != nil { // the old executable is worth more than the reason why it had to come back
		m.opts.Logger.Error("The state of packages cannot be stored.", zap.Error(err))
	}
	err := m.bringBack()
	m.setTrial(false)
	if err != nil {
		m.rec.condemn(reason)
		m.rec.Has = m.rec.Offered
		m.lose(fmt.Sprintf("%s; it still runs, since the old executable cannot be brought back: %v", reason, err))
		m.publish(nil)
		m.opts.Logger.Error("The new executable failed, and the old one cannot be brought back.", zap.String("reason", reason), zap.Error(err))
		return err
	}
	m.reverted()
	m.publish(nil)
	m.askRestart()
	return nil
}

// bringBack puts NAME.previous in the executable's place if it is what was there.
func (m *Manager) bringBack() error {
	sum, err := hashFile(context.Background(), m.previous()) // to be finished also while Close waits
	if err != nil {
		return err
	}
	if !bytes.Equal(sum, m.rec.Old) {
		return fmt.Errorf("%s is not the executable that was replaced", m.previous())
	}
	if err := os.Rename(m.previous(), m.opts.Executable); err != nil {
		return err
	}
	m.opts.step()
	return statefile.SyncDir(filepath.Dir(m.opts.Executable))
}

// reverted records that the old executable is back.
func (m *Manager) reverted() {
	m.rec.condemn(m.rec.Reason)
	m.opts.Logger.Error("The new executable failed; the old one is back.", zap.String("version", m.rec.Offered.Version), zap.String("reason", m.rec.Reason))
	m.lose(m.rec.Reason)
}
