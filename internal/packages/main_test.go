//go:build unix

package packages

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		child(path)
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	oldVersion = "1.0.0"
	newVersion = "1.1.0"
	limit      = 30 * time.Second // of each wait; reached by failing tests only
)

// program is a Collector as far as a dry run can see. The padding makes downloads longer than one read.
func program(version, validate string) []byte {
	return fmt.Appendf(nil, "#!/bin/sh\ncase \"$1\" in\n--version) echo \"otelcol-collie version %s\" ;;\nvalidate) %s ;;\nesac\nexit $?\n%s",
		version, validate, bytes.Repeat([]byte("# padding\n"), 20_000))
}

var (
	oldProgram = program(oldVersion, "true")
	newProgram = program(newVersion, "true")
)

func sum(content []byte) []byte {
	s := sha256.Sum256(content)
	return s[:]
}

// fixture is a machine with an executable of ours, a signer, and a download server.
type fixture struct {
	t      testing.TB
	exe    string
	opts   Options
	secret minisign.PrivateKey
	files  *fileServer
	log    *bytes.Buffer // valid once the Managers are closed
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	public, secret, err := minisign.GenerateKey(nil)
	require.NoError(t, err)
	f := &fixture{t: t, exe: filepath.Join(t.TempDir(), "otelcol-collie"), secret: secret, files: newFileServer(t, newProgram), log: &bytes.Buffer{}}
	require.NoError(t, os.WriteFile(f.exe, oldProgram, 0o755))
	limits := DefaultLimits()
	limits.FirstRetry, limits.MaxRetry, limits.HoldOff = time.Millisecond, 10*time.Millisecond, time.Millisecond
	f.opts = Options{
		Directory: t.TempDir(), Executable: f.exe, Version: oldVersion, PublicKeys: []string{public.String()}, Limits: limits,
		DryRun: Validate([]string{"--config=a.yaml"}, []string{"PATH=/usr/bin:/bin"}, limits.DryRun),
		Logger: zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(f.log)), zap.DebugLevel)),
	}
	return f
}

// open starts a Manager as a process with this version would.
func (f *fixture) open(version string) *Manager {
	f.t.Helper()
	opts := f.opts
	opts.Version = version
	m, err := Open(opts)
	require.NoError(f.t, err)
	f.t.Cleanup(m.Close)
	return m
}

// sign makes a signature as `minisign -S -t` does.
func (f *fixture) sign(content []byte, comment string) []byte {
	f.t.Helper()
	return sign(f.t, f.secret, content, comment)
}

func sign(t testing.TB, secret minisign.PrivateKey, content []byte, comment string) []byte {
	t.Helper()
	r := minisign.NewReader(bytes.NewReader(content))
	_, err := new(bytes.Buffer).ReadFrom(r)
	require.NoError(t, err)
	return r.SignWithComments(secret, comment, "signature")
}

// offer is a good offer of newProgram, changed by edit.
func (f *fixture) offer(edit ...func(*protobufs.PackageAvailable)) *protobufs.PackagesAvailable {
	f.t.Helper()
	p := f.packageOf(newVersion, newProgram)
	for _, e := range edit {
		e(p)
	}
	return &protobufs.PackagesAvailable{Packages: map[string]*protobufs.PackageAvailable{Name: p}, AllPackagesHash: []byte("all of " + string(p.Hash))}
}

func (f *fixture) packageOf(version string, content []byte) *protobufs.PackageAvailable {
	f.t.Helper()
	return &protobufs.PackageAvailable{
		Version: version, Hash: []byte("package " + version),
		File: &protobufs.DownloadableFile{
			DownloadUrl: f.files.URL + "/otelcol-collie", ContentHash: sum(content), Signature: f.sign(content, trustedComment(version)),
		},
	}
}

func (f *fixture) requireExecutable(want []byte) {
	f.t.Helper()
	got, err := os.ReadFile(f.exe)
	require.NoError(f.t, err)
	require.True(f.t, bytes.Equal(want, got), "the executable has %d bytes that are not the expected %d", len(got), len(want))
	info, err := os.Stat(f.exe)
	require.NoError(f.t, err)
	require.Equal(f.t, os.FileMode(0o755), info.Mode().Perm())
}

// requireTidy checks that nothing is left beside the executable but what is meant to stay.
func (f *fixture) requireTidy(want ...string) {
	f.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(f.exe))
	require.NoError(f.t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.ElementsMatch(f.t, append(want, filepath.Base(f.exe)), names)
}

// own is the status of our package.
func own(m *Manager) *protobufs.PackageStatus {
	all := m.Statuses()
	if s := all.Packages[Name]; s != nil {
		return s
	}
	return all.Packages[""]
}

// await waits for a status of our package, and for the end of the work on it.
func await(t *testing.T, m *Manager, want status) *protobufs.PackageStatus {
	t.Helper()
	return awaitThat(t, m, func(s *protobufs.PackageStatus) bool { return s.Status == want })
}

func awaitThat(t *testing.T, m *Manager, done func(*protobufs.PackageStatus) bool) *protobufs.PackageStatus {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		s := own(m)
		if done(s) {
			return s
		}
		require.False(t, time.Now().After(deadline), "still %v", m.Statuses())
	}
}

func awaitRestart(t *testing.T, m *Manager) {
	t.Helper()
	select {
	case <-m.Restart():
	case <-time.After(limit):
		require.FailNow(t, "no restart", "%v", m.Statuses())
	}
}

// awaitFailure offers, and returns why it failed.
func awaitFailure(t *testing.T, m *Manager, offer *protobufs.PackagesAvailable) string {
	t.Helper()
	m.Offer(offer)
	s := awaitThat(t, m, func(s *protobufs.PackageStatus) bool {
		return s.Status == statusFailed && bytes.Equal(m.Statuses().ServerProvidedAllPackagesHash, offer.AllPackagesHash)
	})
	require.Equal(t, oldVersion, s.AgentHasVersion)
	require.NotEmpty(t, s.ErrorMessage)
	return s.ErrorMessage
}

// fileServer serves content like a server that knows ranges, unless handle says otherwise.
type fileServer struct {
	*httptest.Server

	mu       sync.Mutex // guards all that follows
	content  []byte
	etag     string
	handle   func(w http.ResponseWriter, r *http.Request, n int) bool // n counts from 1; true: answered
	requests []*http.Request
	served   int64
}

func newFileServer(t testing.TB, content []byte) *fileServer {
	t.Helper()
	s := &fileServer{content: content, etag: `"v1"`}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *fileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Clone(r.Context()))
	handle, n, content, etag := s.handle, len(s.requests), s.content, s.etag
	s.mu.Unlock()
	counted := &countingWriter{ResponseWriter: w, s: s}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	if handle == nil || !handle(counted, r, n) {
		http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (s *fileServer) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request{}, s.requests...)
}

// requireServed checks how many bytes of files were sent; the last handler may not have counted all of its when they have arrived.
func (s *fileServer) requireServed(t *testing.T, want int) {
	t.Helper()
	var got int64
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		got = s.served
		return got >= int64(want)
	}, limit, time.Millisecond)
	require.EqualValues(t, want, got)
}

type countingWriter struct {
	http.ResponseWriter
	s *fileServer
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.s.mu.Lock()
	c.s.served += int64(n)
	c.s.mu.Unlock()
	return n, err
}

// cut sends the first n bytes of the file, and then closes the connection.
func cut(w http.ResponseWriter, content []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	_, _ = w.Write(content[:n])
	_ = http.NewResponseController(w.(*countingWriter).ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// history collects what a Manager reports.
type history struct {
	mu   sync.Mutex // guards list
	list []*protobufs.PackageStatuses
}

func (h *history) add(s *protobufs.PackageStatuses) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, proto.Clone(s).(*protobufs.PackageStatuses))
}

// statuses are those of our package, without repetitions.
func (h *history) statuses() []status {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []status
	for _, s := range h.list {
		if st := s.Packages[Name].GetStatus(); len(out) == 0 || out[len(out)-1] != st {
			out = append(out, st)
		}
	}
	return out
}
