package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/statefile"
)

// maxTries is how often one package may be run dry: a process that always ends meanwhile may well end because of it.
const maxTries = 3

// process answers an offer, and installs what is new in it.
func (m *Manager) process(ctx context.Context, offer *protobufs.PackagesAvailable) {
	abandoned := m.rec.Stage != idle || m.rec.Status == statusPending // superseded, or interrupted by a restart
	if abandoned {
		m.rec.end(statusInstalled, "")
	}
	m.rec.AllHash, m.rec.Refused, m.rec.Unfit = offer.AllPackagesHash, nil, ""
	name, p, err := fit(offer)
	switch {
	case err != nil:
		m.rec.Unfit, m.rec.Refused = err.Error(), refusals(offer, err)
		m.opts.Logger.Warn("An offer of packages is refused.", zap.Error(err))
		fallthrough
	case p == nil:
		if abandoned {
			m.rec.Offered = nil
		}
	default:
		m.take(ctx, identity{Name: name, Version: p.Version, Hash: p.Hash, Content: p.File.GetContentHash()}, p)
		if ctx.Err() != nil && !m.replaced {
			return // the record stays as it is: another offer follows, or the process ends
		}
	}
	if m.replaced {
		return
	}
	if err := m.save(); err != nil {
		m.opts.Logger.Error("The state of packages cannot be stored.", zap.Error(err))
	}
	m.publish(nil)
}

// take decides what to do with the package.
func (m *Manager) take(ctx context.Context, id identity, p *protobufs.PackageAvailable) {
	same := m.rec.Offered != nil && bytes.Equal(m.rec.Offered.Hash, id.Hash)
	if m.rec.Offered == nil || !bytes.Equal(m.rec.Offered.Content, id.Content) {
		m.rec.ETag = ""
		_ = os.Remove(m.partial()) // the next download would truncate it anyway
	}
	if !same {
		m.rec.Tries, m.rec.Error, m.retryAt = 0, "", time.Time{}
	}
	m.rec.Offered = &id
	failed := m.rec.failureOf(id.Hash)
	switch {
	case failed != nil:
		m.rec.end(statusFailed, failed.Error)
		return
	case bytes.Equal(id.Hash, m.has):
		m.rec.end(statusInstalled, "")
		return
	}
	c, err := m.keys.examine(id, p)
	if err == nil {
		m.hold(ctx)
		err = m.install(ctx, c)
	}
	m.answer(ctx, err)
}

// hold keeps a server that offers a package again at each message from having it downloaded as often.
func (m *Manager) hold(ctx context.Context) {
	wait := time.Until(m.retryAt)
	if wait <= 0 {
		return
	}
	m.rec.Status, m.rec.Error = statusPending, "it is tried again soon; last: "+m.rec.Error
	m.publish(nil)
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

// answer records how an installation ended.
func (m *Manager) answer(ctx context.Context, err error) {
	var hopeless condemned
	switch {
	case err == nil || ctx.Err() != nil && !m.replaced:
		return
	case errors.As(err, &hopeless):
		m.rec.condemn(err.Error())
		_ = os.Remove(m.partial())
	default:
		m.retryAt = time.Now().Add(m.opts.Limits.HoldOff)
	}
	_ = os.Remove(m.beside("new"))
	m.rec.end(statusFailed, err.Error())
	m.opts.Logger.Error("A package is not installed.", zap.String("version", m.rec.Offered.Version), zap.Error(err))
}

// install brings the package to the place of the executable. Until it asks for a restart, nothing has changed.
func (m *Manager) install(ctx context.Context, c *candidate) error {
	if m.rec.Tries >= maxTries {
		return condemned{fmt.Errorf("the process ended %d times while the new executable was tried out", m.rec.Tries)}
	}
	if err := m.checkExecutable(ctx); err != nil {
		return err
	}
	if bytes.Equal(c.Content, m.content) { // came here by other means
		m.rec.Has, m.has = &c.identity, c.Hash
		m.rec.end(statusInstalled, "")
		return nil
	}
	if err := errors.Join(m.checkVersion(c), m.checkWritable()); err != nil {
		return err
	}
	if err := m.advance(downloading, statusDownloading); err != nil {
		return err
	}
	m.opts.Logger.Info("Downloading a new executable.", zap.String("version", c.Version), zap.String("source", redact(c.source)))
	if err := m.fetch(ctx, c); err != nil {
		return err
	}
	m.rec.Tries++
	if err := m.advance(checking, statusInstalling); err != nil {
		return err
	}
	if err := m.place(ctx, c); err != nil {
		return err
	}
	if err := m.opts.DryRun(ctx, m.beside("new"), c.Version); err != nil {
		return condemned{fmt.Errorf("the new executable does not work here: %w", err)}
	}
	return m.swap(ctx)
}

// advance persists a stage before anything of it is done.
func (m *Manager) advance(s stage, st status) error {
	m.rec.Stage, m.rec.Status, m.rec.Error = s, st, ""
	if err := m.save(); err != nil {
		return fmt.Errorf("the state of packages cannot be stored: %w", err)
	}
	m.publish(&protobufs.PackageDownloadDetails{})
	return nil
}

// checkExecutable refuses to replace something that nobody has seen running.
func (m *Manager) checkExecutable(ctx context.Context) error {
	now, err := hashFile(ctx, m.opts.Executable)
	switch {
	case err != nil:
		return fmt.Errorf("the executable cannot be read: %w", err)
	case !bytes.Equal(now, m.content):
		return errors.New("the executable on disk is not the one that runs: restart the Collector first")
	default:
		return nil
	}
}

// checkWritable finds out before a download whether the executable can be replaced at all.
func (m *Manager) checkWritable() error {
	probe := m.beside("new")
	_ = os.Remove(probe)
	f, err := os.OpenFile(probe, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(probe))
	}
	if err != nil {
		return fmt.Errorf("the executable's folder cannot be written, update it as it was installed: %w", err)
	}
	return nil
}

// fetch downloads and verifies. A file that turns out wrong, and may be so because of its download, is downloaded once more.
func (m *Manager) fetch(ctx context.Context, c *candidate) error {
	if err := m.makeStaging(); err != nil {
		return err
	}
	for again := true; ; again = false {
		d := &download{
			candidate: c, transport: m.transport, limits: m.opts.Limits, path: m.partial(), etag: m.rec.ETag,
			keepETag: m.keepETag, progress: m.publish, log: m.opts.Logger,
		}
		if err := d.run(ctx); err != nil {
			return err
		}
		err := m.keys.verify(ctx, m.partial(), c.Content, c.signature, c.Version)
		if !again || !d.doubtful || !errors.Is(err, errContent) {
			return err
		}
		if err := os.Remove(m.partial()); err != nil {
			return err
		}
	}
}

// keepETag lets the next process resume; without it, it resumes unconditionally and finds out by the hash.
func (m *Manager) keepETag(etag string) {
	m.rec.ETag = etag
	if err := m.save(); err != nil {
		m.opts.Logger.Warn("The state of packages cannot be stored.", zap.Error(err))
	}
}

// place copies the verified file beside the executable, with its permissions. It is copied also where it could be renamed: a
// file takes its security label from the folder it was made in, and a staging folder may forbid execution.
func (m *Manager) place(ctx context.Context, c *candidate) error {
	info, err := os.Stat(m.opts.Executable)
	if err != nil {
		return err
	}
	sum, err := copyFile(ctx, m.beside("new"), m.partial(), info.Mode().Perm()|0o500)
	if err != nil {
		return fmt.Errorf("copy the new executable beside the old one: %w", err)
	}
	if !bytes.Equal(sum, c.Content) {
		return errors.New("the staged file was changed after it was verified")
	}
	m.opts.step()
	return nil
}

// swap keeps the old executable and puts the new one in its place.
func (m *Manager) swap(ctx context.Context) error {
	if err := m.keepPrevious(ctx); err != nil {
		return fmt.Errorf("keep the old executable: %w", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.rec.Old = m.content
	if err := m.advance(swapping, statusInstalling); err != nil {
		return err
	}
	if err := os.Rename(m.beside("new"), m.opts.Executable); err != nil {
		return fmt.Errorf("replace the executable: %w", err)
	}
	m.opts.step()
	_ = statefile.SyncDir(filepath.Dir(m.opts.Executable)) // either content is fine
	_ = os.Remove(m.partial())
	m.opts.Logger.Info("The executable was replaced; the new one is on trial after the restart.", zap.String("version", m.rec.Offered.Version))
	m.askRestart()
	return nil
}

// keepPrevious makes NAME.previous, as a hard link where that is possible.
func (m *Manager) keepPrevious(ctx context.Context) error {
	link := m.beside("previous")
	_ = os.Remove(link)
	if err := os.Link(m.opts.Executable, link); err != nil {
		info, err := os.Stat(m.opts.Executable)
		if err != nil {
			return err
		}
		if _, err := copyFile(ctx, link, m.opts.Executable, info.Mode().Perm()); err != nil {
			return err
		}
	}
	m.opts.step()
	if sum, err := hashFile(ctx, link); err != nil || !bytes.Equal(sum, m.content) {
		return errors.Join(errors.New("it was replaced meanwhile"), err)
	}
	if err := os.Rename(link, m.previous()); err != nil {
		return err
	}
	m.opts.step()
	return statefile.SyncDir(filepath.Dir(m.opts.Executable))
}
