package packages

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/collie-otel/collie/internal/statefile"
)

func writeRecord(path string, r *record) error { return statefile.Write(path, r) }

func readRecord(path string) (record, error) {
	var r record
	err := statefile.Read(path, &r)
	if err != nil {
		r = record{}
	}
	r.sound()
	return r, err
}

// hashFile is the SHA-256 of a regular file.
func hashFile(ctx context.Context, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, contextReader{ctx, f}); err != nil {
		return nil, err
	}
	return sum.Sum(nil), nil
}

// copyFile makes a synced copy, with its mode, and returns the SHA-256 of what it has copied. Nothing stays when it fails.
func copyFile(ctx context.Context, to, from string, mode fs.FileMode) (sum []byte, err error) {
	source, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer func() { _ = source.Close() }()
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), contextReader{ctx, source})
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", to, err), os.Remove(to))
	}
	return h.Sum(nil), nil
}

// makeStaging makes the folder of our own, and refuses one that is not.
func (m *Manager) makeStaging() error {
	if err := os.MkdirAll(m.staging, 0o700); err != nil {
		return fmt.Errorf("make the staging folder: %w", err)
	}
	if info, err := os.Lstat(m.staging); err != nil || !info.IsDir() {
		return errors.Join(fmt.Errorf("the staging folder %s is no folder", m.staging), err)
	}
	return os.Chmod(m.staging, 0o700)
}

func (m *Manager) partial() string  { return filepath.Join(m.staging, "download.partial") }
func (m *Manager) previous() string { return m.opts.Executable + ".previous" }

// beside is a file in the executable's folder: a rename of it is atomic, and it may be executed there. Several agents may run
// from one executable; each has its own files.
func (m *Manager) beside(what string) string {
	folder, name := filepath.Split(m.opts.Executable)
	return filepath.Join(folder, fmt.Sprintf(".%s.%08x.%s", name, crc32.ChecksumIEEE([]byte(m.statePath)), what))
}
