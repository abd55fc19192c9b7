package fleet

import (
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// A Collector is told to send its own metrics to the server, and the server shows what flows through it.
func TestOwnMetricsToTheServer(t *testing.T) {
	t.Parallel()
	h := emptyHerd(t, harness.ServerOptions{Secure: true})
	h.start("prod-1", map[string]string{"TOKEN": h.token("agent").Secret})
	file := h.body("selector: group=prod\nown_metrics: {endpoint: self}\n")
	code, printed := h.collie("connections", "apply", "-f", file, "--name", "own")
	require.Equal(t, 0, code, printed)
	stop := harness.Background(t, traffic.LoadConfig{Endpoints: []string{h.collectors["prod-1"].GRPC()}, Rate: 500, Retry: true})
	uid := ""
	harness.Await(t, limit, "the agent took it", func() (bool, any) {
		page := h.server.Agents()
		if page.Total == 1 {
			uid = page.Agents[0].InstanceUID
		}
		return page.Total == 1 && page.Agents[0].ConnectionSettings.Status == "APPLIED", page
	})
	harness.Await(t, 2*time.Minute, "what flows through it", func() (bool, any) {
		var series apiv1.Series
		err := h.server.Do(http.MethodGet, "/agents/"+uid+"/throughput", nil, &series)
		last := func(points []*float64) float64 {
			for i := len(points) - 1; i >= 0; i-- {
				if points[i] != nil {
					return *points[i]
				}
			}
			return 0
		}
		accepted, sent := last(series.Accepted), last(series.Sent)
		return accepted > 300 && accepted < 700 && sent > 300 && sent < 700, []any{accepted, sent, err}
	})
	stop()
	code, printed = h.collie("agents", "throughput", "prod-1")
	require.Equal(t, 0, code, printed)
}

// An executable of a signed folder is offered to the agents of a selector, and installed by those.
func TestPackageFromAFolder(t *testing.T) {
	t.Parallel()
	public, private, err := minisign.GenerateKey(rand.Reader)
	require.NoError(t, err)
	folder := t.TempDir()
	signed := filepath.Join(folder, "99.0.0", runtime.GOOS+"-"+runtime.GOARCH)
	require.NoError(t, os.MkdirAll(signed, 0o755))
	next, err := os.ReadFile(harness.Binary(t, "test/otelcol-next"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(signed, "otelcol-collie"), next, 0o755))
	reader := minisign.NewReader(strings.NewReader(string(next)))
	_, err = io.Copy(io.Discard, reader)
	require.NoError(t, err)
	signature := reader.SignWithComments(private, "otelcol-collie 99.0.0 "+runtime.GOOS+"/"+runtime.GOARCH, "")
	require.NoError(t, os.WriteFile(filepath.Join(signed, "otelcol-collie.minisig"), signature, 0o644))

	h := emptyHerd(t, harness.ServerOptions{Secure: true, Args: []string{"--packages-dir", folder, "--packages-key", public.String()}})
	executable := filepath.Join(t.TempDir(), "otelcol-collie")
	current, err := os.ReadFile(harness.Binary(t, "test/otelcol-unruly"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(executable, current, 0o755))
	token := h.token("agent").Secret
	h.run("prod-1", executable, map[string]string{"TOKEN": token, "PACKAGES": "true", "PACKAGES_KEYS": "[" + public.String() + "]"})
	h.start("stage-1", map[string]string{"TOKEN": token})
	code, printed := h.collie("packages", "list")
	require.Equal(t, 0, code, printed)
	require.Contains(t, printed, "99.0.0")
	code, printed = h.collie("packages", "offer", "next", "--version", "99.0.0", "--selector", "group=prod")
	require.Equal(t, 0, code, printed)
	harness.Await(t, 2*time.Minute, "the new version", func() (bool, any) {
		a := h.agent("prod-1")
		return a.Version == "99.0.0" && a.State == "healthy" && len(a.Packages) == 1 && a.Packages[0].Status == "Installed", a
	})
	require.NotEqual(t, "99.0.0", h.agent("stage-1").Version)
	code, printed = h.collie("packages", "offer", "none", "--version", "1.2.3", "--selector", "")
	require.Equal(t, 1, code, printed)
	require.Contains(t, printed, "no package")
}
