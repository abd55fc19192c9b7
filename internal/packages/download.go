package packages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
)

// Limits bounds downloads and dry runs. DefaultLimits has the values for production.
type Limits struct {
	MaxBytes int64         // of the file
	Idle     time.Duration // without a byte, before a connection counts as lost
	Overall  time.Duration // of one download, all attempts and waits included
	DryRun   time.Duration // of the new executable
	// Attempts is how often a download is tried without getting a single byte; the waits between double from FirstRetry to MaxRetry.
	Attempts             int
	FirstRetry, MaxRetry time.Duration
	// HoldOff is how long a package is left alone after a failure that did not lie in it, however often it is offered.
	HoldOff time.Duration
}

// DefaultLimits are 1 GiB, an hour, and about three minutes of a server that is away.
func DefaultLimits() Limits {
	return Limits{
		MaxBytes: 1 << 30, Idle: 30 * time.Second, Overall: time.Hour, DryRun: 60 * time.Second,
		Attempts: 8, FirstRetry: time.Second, MaxRetry: time.Minute, HoldOff: 30 * time.Second,
	}
}

// transient is an error of the network or the server that may be over at the next attempt.
type transient struct {
	error
	after time.Duration // as the server asked; 0: it did not
}

func (t transient) Unwrap() error { return t.error }

// download gets one file into path, which may hold the beginning of it.
type download struct {
	*candidate
	transport http.RoundTripper
	limits    Limits
	path      string
	etag      string                                  // of the version that path is the beginning of; empty: unknown
	keepETag  func(string)                            // called before the first byte of another version is written
	progress  func(*protobufs.PackageDownloadDetails) // once a second at most
	log       *zap.Logger

	doubtful bool // path was continued, or its length is unknown: when it is wrong, that may lie in the download
}

// run downloads until the file is complete; it does not verify it.
func (d *download) run(parent context.Context) error {
	if sum, err := hashFile(parent, d.path); err == nil && string(sum) == string(d.Content) {
		return nil // complete already, and the process ended before it was used
	}
	ctx, cancel := context.WithTimeout(parent, d.limits.Overall)
	defer cancel()
	for failures := 0; ; {
		received, err := d.attempt(ctx)
		var again transient
		switch {
		case parent.Err() != nil:
			return parent.Err()
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("not downloaded within %v", d.limits.Overall)
		case errors.Is(err, syscall.ENOSPC):
			return errors.Join(fmt.Errorf("the staging folder's disk is full: %w", err), os.Remove(d.path))
		case !errors.As(err, &again):
			return err
		}
		if failures++; received > 0 {
			failures = 1
		}
		if failures >= d.limits.Attempts {
			return fmt.Errorf("given up after %d attempts: %w", failures, err)
		}
		wait := d.wait(failures, again.after)
		d.log.Warn("A package's download was interrupted, will retry.", zap.String("source", redact(d.source)), zap.Duration("wait", wait), zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// wait doubles with each failure; a server may ask for more, as far as MaxRetry.
func (d *download) wait(failures int, asked time.Duration) time.Duration {
	own := d.limits.MaxRetry
	if failures < 16 {
		own = min(own, d.limits.FirstRetry<<(failures-1))
	}
	own = max(own, min(asked, d.limits.MaxRetry))
	return time.Duration(float64(own) * (0.75 + 0.5*rand.Float64()))
}

// errIdle ends a connection that brings nothing.
var errIdle = errors.New("nothing received for too long")

// attempt is one request. It returns how many bytes it has got.
func (d *download) attempt(ctx context.Context) (received int64, err error) {
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	offset, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(d.limits.Idle, func() { cancel(errIdle) })
	defer timer.Stop()
	resp, err := d.get(ctx, offset)
	if err != nil {
		return 0, because(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := &meter{r: resp.Body, alive: func() { timer.Reset(d.limits.Idle) }, report: d.progress}
	if body.at, body.total, err = d.begin(f, resp, offset); err != nil {
		return 0, err
	}
	_, err = io.Copy(f, io.LimitReader(body, d.limits.MaxBytes-body.at+1))
	switch {
	case body.at > d.limits.MaxBytes:
		return body.got, errors.Join(fmt.Errorf("the file has more than the allowed %d bytes", d.limits.MaxBytes), os.Remove(d.path))
	case err != nil && body.err == nil: // of the disk
		return body.got, err
	case err != nil:
		return body.got, because(ctx, transient{error: err})
	}
	return body.got, f.Sync()
}

// because names the idle timeout where the network only says that it was interrupted.
func because(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errIdle) {
		return transient{error: errIdle}
	}
	return err
}

// begin looks at an answer's head and positions the file. It returns where the body begins and how long the whole file is, -1
// when the server does not say.
func (d *download) begin(f *os.File, resp *http.Response, offset int64) (at, total int64, err error) {
	total = resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
		if offset > 0 {
			if err := f.Truncate(0); err != nil {
				return 0, 0, err
			}
		}
		offset = 0
	case http.StatusPartialContent:
		first, all, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || first != offset {
			return 0, 0, errors.Join(transient{error: errors.New("the server sent another part of the file than it was asked for")}, f.Truncate(0))
		}
		total, d.doubtful = all, d.doubtful || offset > 0
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, 0, errors.Join(transient{error: errors.New("the file has become shorter")}, f.Truncate(0))
	default:
		return 0, 0, refused(resp)
	}
	if total > d.limits.MaxBytes {
		return 0, 0, fmt.Errorf("the file has %d bytes, more than the allowed %d", total, d.limits.MaxBytes)
	}
	if offset == 0 {
		d.etag, d.doubtful = strong(resp.Header.Get("ETag")), total < 0
		d.keepETag(d.etag)
	}
	_, err = f.Seek(offset, io.SeekStart)
	return offset, total, err
}

// refused makes an error of a status code.
func refused(resp *http.Response) error {
	err := fmt.Errorf("the download server answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	switch code := resp.StatusCode; {
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return transient{error: err, after: time.Duration(max(0, min(seconds, 3600))) * time.Second}
	default:
		return err
	}
}

// contentRange reads "bytes FIRST-LAST/TOTAL"; TOTAL may be "*".
func contentRange(text string) (first, total int64, ok bool) {
	bounds, size, ok := strings.Cut(strings.TrimPrefix(text, "bytes "), "/")
	from, _, ok2 := strings.Cut(bounds, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	if !ok || !ok2 || err != nil || first < 0 {
		return 0, 0, false
	}
	if total, err = strconv.ParseInt(size, 10, 64); err != nil {
		total = -1
	}
	return first, total, true
}

// strong is the ETag if it may stand in If-Range (RFC 9110, 13.1.5), else nothing.
func strong(etag string) string {
	if len(etag) > maxName || !strings.HasPrefix(etag, `"`) {
		return ""
	}
	return etag
}

// meter passes a body on, and says that it does and how fast.
type meter struct {
	r          io.Reader
	at, total  int64 // position in the file, and its length or -1
	got        int64
	err        error // of r, but its end
	alive      func()
	report     func(*protobufs.PackageDownloadDetails)
	since      time.Time // of the last report
	sinceBytes int64
}

func (m *meter) Read(p []byte) (int, error) {
	if m.since.IsZero() {
		m.since = time.Now()
	}
	n, err := m.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	if n == 0 {
		return n, err
	}
	m.alive()
	m.at, m.got, m.sinceBytes = m.at+int64(n), m.got+int64(n), m.sinceBytes+int64(n)
	if passed := time.Since(m.since); passed >= time.Second {
		details := &protobufs.PackageDownloadDetails{DownloadBytesPerSecond: float64(m.sinceBytes) / passed.Seconds()}
		if m.total > 0 {
			details.DownloadPercent = min(100, 100*float64(m.at)/float64(m.total))
		}
		m.report(details)
		m.since, m.sinceBytes = time.Now(), 0
	}
	return n, err
}
