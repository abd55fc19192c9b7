//go:build unix

package packages

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

const part = 70_000 // bytes of the file before something happens

func TestResumesAfterALostConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.files.handle = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			cut(w, newProgram, part)
		}
		return false
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
	requests := f.files.seen()
	require.Len(t, requests, 2)
	require.Empty(t, requests[0].Header.Get("Range"))
	require.Equal(t, fmt.Sprintf("bytes=%d-", part), requests[1].Header.Get("Range"))
	require.Equal(t, `"v1"`, requests[1].Header.Get("If-Range"))
	f.files.requireServed(t, len(newProgram)) // no byte was sent twice
}

func TestResumesAfterARestart(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	arrived := make(chan struct{})
	f.files.handle = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(newProgram)))
		_, _ = w.Write(newProgram[:part])
		_ = http.NewResponseController(w.(*countingWriter).ResponseWriter).Flush()
		close(arrived)
		<-r.Context().Done()
		return true
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	<-arrived
	require.Eventually(t, func() bool {
		info, err := os.Stat(m.partial())
		return err == nil && info.Size() == part
	}, limit, time.Millisecond)
	info, err := os.Stat(m.partial())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	info, err = os.Stat(m.staging)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	m.Close()

	m = f.open(oldVersion)
	s := own(m)
	require.Equal(t, statusPending, s.Status)
	require.Equal(t, newVersion, s.ServerOfferedVersion)
	require.Empty(t, m.Statuses().ServerProvidedAllPackagesHash, "or it would not be offered again")
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
	requests := f.files.seen()
	require.Len(t, requests, 2)
	require.Equal(t, fmt.Sprintf("bytes=%d-", part), requests[1].Header.Get("Range"))
	require.Equal(t, `"v1"`, requests[1].Header.Get("If-Range"), "the ETag is kept, too")
	f.files.requireServed(t, len(newProgram))
}

// TestDownloads: the first request is cut after part bytes; what the server does then must end in the right file all the same.
func TestDownloads(t *testing.T) {
	t.Parallel()
	whole := func(w http.ResponseWriter) { _, _ = w.Write(newProgram) }
	for name, tc := range map[string]struct {
		etag   string
		handle func(f *fixture, w http.ResponseWriter, r *http.Request, n int) bool
		served int
	}{
		"ignores ranges": {etag: `"v1"`, served: part + len(newProgram), handle: func(_ *fixture, w http.ResponseWriter, _ *http.Request, _ int) bool {
			whole(w)
			return true
		}},
		"another version": {etag: `"v1"`, served: part + len(newProgram), handle: func(_ *fixture, w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("ETag", `"v2"`)
			return false // ServeContent then ignores the range, for If-Range
		}},
		"weak ETag": {etag: `W/"v1"`, served: len(newProgram)},
		"no ETag":   {served: len(newProgram)},
		"503 in between": {etag: `"v1"`, served: len(newProgram), handle: func(_ *fixture, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n < 5 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return n < 5
		}},
		"416": {etag: `"v1"`, served: part + len(newProgram), handle: func(_ *fixture, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 2 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			}
			return n == 2
		}},
		"another range": {etag: `"v1"`, served: part + len(newProgram), handle: func(_ *fixture, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 2 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-%d/%d", len(newProgram)-1, len(newProgram)))
				w.WriteHeader(http.StatusPartialContent)
			}
			return n == 2
		}},
		"nonsense for a range": {etag: `"v1"`, served: part + len(newProgram), handle: func(_ *fixture, w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 2 {
				w.Header().Set("Content-Range", "bytes */*")
				w.WriteHeader(http.StatusPartialContent)
			}
			return n == 2
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.files.etag = tc.etag
			f.files.handle = func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					cut(w, newProgram, part)
				}
				return tc.handle != nil && tc.handle(f, w, r, n)
			}
			m := f.open(oldVersion)
			m.Offer(f.offer())
			awaitRestart(t, m)
			f.requireExecutable(newProgram)
			f.files.requireServed(t, tc.served)
		})
	}
}

// Without an ETag a file that has changed in between is only found out by its hash.
func TestMixOfTwoVersionsIsDownloadedOnceMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.files.etag = ""
	f.files.handle = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			cut(w, oldProgram, part)
		}
		return false
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
	require.Len(t, f.files.seen(), 3)
}

func TestAnotherPackageIsNotResumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	arrived := make(chan struct{})
	newest := program("1.2.0", "true")
	f.files.handle = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Path == "/newest" {
			w.Header().Set("ETag", `"newest"`)
			_, _ = w.Write(newest)
			return true
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(newProgram)))
		_, _ = w.Write(newProgram[:part])
		_ = http.NewResponseController(w.(*countingWriter).ResponseWriter).Flush()
		close(arrived)
		<-r.Context().Done()
		return true
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	<-arrived
	m.Offer(f.offer()) // the same: nothing starts anew
	p := f.packageOf("1.2.0", newest)
	p.File.DownloadUrl = f.files.URL + "/newest"
	m.Offer(&protobufs.PackagesAvailable{Packages: map[string]*protobufs.PackageAvailable{Name: p}, AllPackagesHash: []byte("newest")})
	awaitRestart(t, m)
	f.requireExecutable(newest)
	requests := f.files.seen()
	require.Len(t, requests, 2)
	require.Empty(t, requests[1].Header.Get("Range"))
	require.Equal(t, "newest", string(m.Statuses().ServerProvidedAllPackagesHash))
}

func TestARepeatedOfferChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	arrived, repeated := make(chan struct{}, 9), make(chan struct{})
	f.files.handle = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		arrived <- struct{}{}
		select {
		case <-repeated:
			return false
		case <-r.Context().Done():
			return true
		}
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	<-arrived
	m.Offer(f.offer())
	close(repeated)
	awaitRestart(t, m)
	require.Len(t, f.files.seen(), 1, "the download went on")
}

// The newest offer counts, also when it is the one whose processing has just been given up for another.
func TestOffersInASequence(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	arrived := make(chan struct{})
	f.files.handle = func(_ http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			close(arrived)
			<-r.Context().Done()
		}
		return n == 1
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	<-arrived
	m.Offer(&protobufs.PackagesAvailable{AllPackagesHash: []byte("none")})
	m.Offer(f.offer())
	awaitRestart(t, m)
	f.requireExecutable(newProgram)
}

func TestAnEmptyOfferEndsADownload(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.files.handle = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		<-r.Context().Done()
		return true
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	await(t, m, statusDownloading)
	m.Offer(&protobufs.PackagesAvailable{AllPackagesHash: []byte("none")})
	s := await(t, m, statusInstalled)
	require.True(t, proto.Equal(&protobufs.PackageStatus{Name: Name, AgentHasVersion: oldVersion}, s), "%v", s)
	require.Equal(t, "none", string(m.Statuses().ServerProvidedAllPackagesHash))
}

func TestDownloadsThatEnd(t *testing.T) {
	t.Parallel()
	status := func(code int) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.WriteHeader(code)
			return true
		}
	}
	chunked := func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		for range 100 {
			_, _ = w.Write(newProgram[:1000])
			_ = http.NewResponseController(w.(*countingWriter).ResponseWriter).Flush()
		}
		return true
	}
	hang := func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		<-r.Context().Done()
		return true
	}
	for name, tc := range map[string]struct {
		limits   func(*Limits)
		handle   func(http.ResponseWriter, *http.Request, int) bool
		want     string
		requests int
	}{
		"404":            {nil, status(404), "404 Not Found", 1},
		"403":            {nil, status(403), "403 Forbidden", 1},
		"429":            {nil, status(429), "given up after 8 attempts: the download server answered 429", 8},
		"500":            {nil, status(500), "given up after 8 attempts", 8},
		"larger":         {func(l *Limits) { l.MaxBytes = 50_000 }, nil, "bytes, more than the allowed 50000", 1},
		"larger, hidden": {func(l *Limits) { l.MaxBytes = 50_000 }, chunked, "more than the allowed 50000", 1},
		"idle":           {func(l *Limits) { l.Idle, l.Attempts = 20*time.Millisecond, 2 }, hang, "nothing received for too long", 2},
		"overall":        {func(l *Limits) { l.Overall = 50 * time.Millisecond }, hang, "not downloaded within 50ms", 1},
		"redirects": {nil, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			http.Redirect(w, r, "/again", http.StatusFound)
			return true
		}, "redirected more than 10 times", 11},
		"redirect to nowhere": {nil, func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.Header().Set("Location", "http://%zz?token=s3cret")
			w.WriteHeader(http.StatusFound)
			return true
		}, "no URL", 1},
		"redirect to a file": {nil, func(w http.ResponseWriter, r *http.Request, _ int) bool {
			http.Redirect(w, r, "file://localhost/etc/passwd", http.StatusFound)
			return true
		}, "redirected from http to file", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			if tc.limits != nil {
				tc.limits(&f.opts.Limits)
			}
			f.files.handle = tc.handle
			m := f.open(oldVersion)
			message := awaitFailure(t, m, f.offer())
			require.Contains(t, message, tc.want)
			require.NotContains(t, message, "s3cret")
			require.Len(t, f.files.seen(), tc.requests)
			f.requireExecutable(oldProgram)

			// It did not lie in the package: offered again, it is tried again.
			f.files.mu.Lock()
			f.files.handle = nil
			f.files.mu.Unlock()
			if tc.limits == nil {
				m.Offer(f.offer())
				awaitRestart(t, m)
				f.requireExecutable(newProgram)
			}
		})
	}
}

func TestHoldOff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.opts.Limits.HoldOff = time.Hour
	f.files.handle = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.WriteHeader(http.StatusNotFound)
		return true
	}
	m := f.open(oldVersion)
	awaitFailure(t, m, f.offer())
	m.Offer(f.offer())
	require.Contains(t, await(t, m, statusPending).ErrorMessage, "404")
	m.Offer(&protobufs.PackagesAvailable{AllPackagesHash: []byte("none")})
	await(t, m, statusInstalled)
	require.Len(t, f.files.seen(), 1)
}

func TestHeadersGoToTheirHostOnly(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int{"302": 302, "307": 307, "308": 308} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			other := newFileServer(t, newProgram)
			f.files.handle = func(w http.ResponseWriter, r *http.Request, n int) bool {
				if n == 1 {
					http.Redirect(w, r, "/elsewhere", code)
				} else {
					http.Redirect(w, r, other.URL+"/file", code)
				}
				return true
			}
			m := f.open(oldVersion)
			m.Offer(f.offer(func(p *protobufs.PackageAvailable) { secretive(f, p) }))
			awaitRestart(t, m)
			f.requireExecutable(newProgram)
			ours := f.files.seen()
			require.Len(t, ours, 2)
			for _, r := range ours {
				require.Equal(t, "header-s3cret", r.Header.Get("X-Token"))
				require.Equal(t, "identity", r.Header.Get("Accept-Encoding"))
				user, password, _ := r.BasicAuth()
				require.Equal(t, "user:password-s3cret", user+":"+password)
			}
			require.Equal(t, "query-s3cret", ours[0].URL.Query().Get("token"))
			theirs := other.seen()
			require.Len(t, theirs, 1)
			for name, values := range theirs[0].Header {
				require.NotContains(t, strings.Join(values, " "), "s3cret", name)
			}
			require.Empty(t, theirs[0].Header.Get("X-Token"))
			require.Empty(t, theirs[0].Header.Get("Authorization"))
			require.Empty(t, theirs[0].Header.Get("Referer"))
		})
	}
}

// secretive puts a secret wherever an offer can have one.
func secretive(f *fixture, p *protobufs.PackageAvailable) {
	p.File.DownloadUrl = strings.Replace(f.files.URL, "http://", "http://user:password-s3cret@", 1) + "/file?token=query-s3cret"
	p.File.Headers = &protobufs.Headers{Headers: []*protobufs.Header{{Key: "X-Token", Value: "header-s3cret"}, {Key: "Range", Value: "bytes=5-"}}}
}

func TestNoSecretIsKeptOrTold(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]func(w http.ResponseWriter, r *http.Request, n int) bool{
		"installed": nil,
		"retried": func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n == 1 {
				cut(w, newProgram, part)
			}
			return false
		},
		"refused": func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		},
		"connection lost": func(http.ResponseWriter, *http.Request, int) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.files.handle = handle
			f.opts.Limits.Attempts = 2
			var h history
			f.opts.Changed = h.add
			m := f.open(oldVersion)
			m.Offer(f.offer(func(p *protobufs.PackageAvailable) { secretive(f, p) }))
			awaitThat(t, m, func(s *protobufs.PackageStatus) bool { return s.Status == statusFailed || len(m.Restart()) > 0 })
			m.Close()
			state, err := os.ReadFile(m.statePath)
			require.NoError(t, err)
			for what, text := range map[string]string{"state": string(state), "log": f.log.String(), "statuses": fmt.Sprint(h.list)} {
				require.NotEmpty(t, text, what)
				require.NotContains(t, text, "s3cret", what)
			}
		})
	}
}

func TestNoRedirectFromHTTPS(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	secure := httptest.NewTLSServer(http.RedirectHandler(f.files.URL, http.StatusFound))
	t.Cleanup(secure.Close)
	f.opts.Transport = secure.Client().Transport
	m := f.open(oldVersion)
	require.Contains(t, awaitFailure(t, m, f.offer(func(p *protobufs.PackageAvailable) { p.File.DownloadUrl = secure.URL })), "from https to http")
	require.Empty(t, f.files.seen())
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	m := f.open(oldVersion)
	require.NoError(t, m.makeStaging())
	require.NoError(t, os.Symlink("/dev/full", m.partial()))
	u, err := url.Parse(f.files.URL)
	require.NoError(t, err)
	d := &download{
		candidate: &candidate{source: u, headers: http.Header{}}, transport: fullDisk{}, limits: f.opts.Limits, path: m.partial(),
		keepETag: func(string) {}, progress: m.publish, log: f.opts.Logger,
	}
	err = d.run(t.Context())
	require.ErrorContains(t, err, "disk is full")
	require.NoFileExists(t, m.partial(), "the space is given back")
}

// fullDisk answers as if the device /dev/full, which cannot be truncated, were the beginning of the file.
type fullDisk struct{}

func (fullDisk) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusPartialContent, Header: http.Header{"Content-Range": {"bytes 0-3/4"}},
		Body: io.NopCloser(strings.NewReader("data")), ContentLength: 4,
	}, nil
}

func TestProgressOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reports []*protobufs.PackageDownloadDetails
		began := time.Now()
		var at []time.Duration
		body := &meter{r: slowReader{}, at: 100, total: 500, alive: func() {}, report: func(d *protobufs.PackageDownloadDetails) {
			reports, at = append(reports, d), append(at, time.Since(began))
		}}
		_, err := io.CopyN(io.Discard, body, 400)
		require.NoError(t, err)
		require.Len(t, reports, 4)
		for i, d := range reports {
			require.GreaterOrEqual(t, at[i], time.Duration(i+1)*time.Second)
			require.InDelta(t, 100, d.DownloadBytesPerSecond, 1)
			require.InDelta(t, 40+20*float64(i), d.DownloadPercent, 0.5)
		}
	})
}

// slowReader brings 100 bytes a second.
type slowReader struct{}

func (slowReader) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return min(10, len(p)), nil
}

func TestProgressIsReported(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.files.handle = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(newProgram)))
		for i := 0; ; i++ { // until the agent has said so
			_, _ = w.Write(newProgram[i : i+1])
			_ = http.NewResponseController(w.(*countingWriter).ResponseWriter).Flush()
			select {
			case <-r.Context().Done():
				return true
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	m := f.open(oldVersion)
	m.Offer(f.offer())
	s := awaitThat(t, m, func(s *protobufs.PackageStatus) bool { return s.DownloadDetails.GetDownloadPercent() > 0 })
	require.Equal(t, statusDownloading, s.Status)
	require.Equal(t, "package "+newVersion, string(s.ServerOfferedHash))
	require.Positive(t, s.DownloadDetails.DownloadBytesPerSecond)
	require.Less(t, s.DownloadDetails.DownloadPercent, 100.0)
	require.Empty(t, s.ErrorMessage)
}

func TestWait(t *testing.T) {
	t.Parallel()
	d := &download{limits: DefaultLimits()}
	for failures, want := range map[int]time.Duration{1: time.Second, 3: 4 * time.Second, 7: time.Minute, 100: time.Minute} {
		require.InDelta(t, want, d.wait(failures, 0), float64(want)/4+1)
	}
	require.InDelta(t, 20*time.Second, d.wait(1, 20*time.Second), float64(5*time.Second)+1)
	require.LessOrEqual(t, d.wait(1, time.Hour), 75*time.Second)
	_, err := (contextReader{canceled(), strings.NewReader("x")}).Read(make([]byte, 1))
	require.ErrorIs(t, err, context.Canceled)
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
