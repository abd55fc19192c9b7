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

// Agents are moved to another server, stay there, and take its heartbeat.
func TestMoveToAnotherServer(t *testing.T) {
	t.Parallel()
	h := newHerd(t, "prod-1")
	other := harness.StartServer(t, harness.ServerOptions{})
	uid := h.agent("prod-1").InstanceUID
	file := h.body("opamp: {endpoint: '" + other.WebSocket() + "', heartbeat_interval: 1s}\n")
	code, printed := h.collie("connections", "apply", "-f", file, "--name", "move")
	require.Equal(t, 0, code, printed)
	a := other.AwaitAgent(uid, limit, "the agent is there", func(a apiv1.Agent) bool { return a.State == "healthy" && a.ConnectionSettings.Status == "APPLIED" })
	require.Equal(t, "prod-1", a.NonIdentifyingAttributes["host.name"])
	h.server.AwaitAgent(uid, limit, "and not here", func(a apiv1.Agent) bool { return !a.Connected })
	require.Contains(t, strings.Join(h.timeline("prod-1"), "\n"), "connection_settings_offered")
	seen := a.LastSeen
	other.AwaitAgent(uid, limit, "its heartbeats", func(a apiv1.Agent) bool { return a.LastSeen.Sub(seen) > 2*time.Second })
	h.collectors["prod-1"].Stop()
	h.collectors["prod-1"].Start()
	other.AwaitAgent(uid, limit, "there again after a restart", healthy)
}

// An offer to move where nobody is changes nothing: the agent stays, and says why.
func TestMoveToNowhere(t *testing.T) {
	t.Parallel()
	h := newHerd(t, "prod-1")
	uid := h.agent("prod-1").InstanceUID
	code, printed := h.collie("connections", "apply", "-f", h.body("opamp: {endpoint: 'ws://127.0.0.1:9/v1/opamp'}\n"), "--name", "move")
	require.Equal(t, 0, code, printed)
	a := h.server.AwaitAgent(uid, limit, "the agent refuses", func(a apiv1.Agent) bool { return a.Connected && a.ConnectionSettings.Status == "FAILED" })
	require.NotEmpty(t, a.ConnectionSettings.Error)
	require.Contains(t, strings.Join(h.timeline("prod-1"), "\n"), "connection_settings_failed")
}

// A copy of the database, made while the server runs, is a server with all that was there.
func TestBackup(t *testing.T) {
	t.Parallel()
	h := newHerd(t, "prod-1")
	code, printed := h.collie("config", "apply", "-f", h.body(addAttribute), "--name", "attribute", "--selector", "group=prod", "--rollout", "--soak", "0s")
	require.Equal(t, 0, code, printed)
	dir := t.TempDir()
	copied := filepath.Join(dir, "collie.db")
	code, printed = h.collie("server", "backup", "--data-dir", h.server.Dir(), copied)
	require.Equal(t, 0, code, printed)
	code, printed = h.collie("server", "backup", "--data-dir", h.server.Dir(), copied)
	require.Equal(t, 1, code, "nothing is overwritten: %s", printed)
	code, printed = h.collie("server", "backup", "--data-dir", t.TempDir(), filepath.Join(dir, "x"))
	require.Equal(t, 1, code, printed)
	require.Contains(t, printed, "--data-dir")

	restored := harness.StartServer(t, harness.ServerOptions{Dir: dir})
	page := restored.Agents()
	require.Equal(t, 1, page.Total)
	require.Equal(t, "disconnected", page.Agents[0].State)
	require.Equal(t, h.agent("prod-1").RemoteConfig.ReportedHash, page.Agents[0].RemoteConfig.ReportedHash)
	var c apiv1.Configuration
	restored.Must(http.MethodGet, "/configurations/attribute", nil, &c)
	require.Equal(t, addAttribute, c.Body, "byte for byte")
	require.Equal(t, 1, c.ReleasedVersion)
}
