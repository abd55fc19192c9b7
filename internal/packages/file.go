package packages

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

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
