package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/collie-otel/collie/internal/datadir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config is a server on free ports.
func config(t *testing.T) Config {
	c := DefaultConfig()
	c.DataDir, c.Dev = filepath.Join(t.TempDir(), "data"), true
	c.OpAMP.Listen, c.API.Listen, c.OpAMP.DrainFor = "127.0.0.1:0", "127.0.0.1:0", time.Millisecond
	return c
}

func made(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := New(t.Context(), c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s
}

// get asks and closes the connection.
func get(t *testing.T, url, authorization string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	r.Close = true
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(data)
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	s := made(t, config(t))
	s.Start()
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/agents", "/api/v1/openapi.yaml"} {
		code, body := get(t, s.APIURL()+path, "")
		require.Equal(t, http.StatusOK, code, path+": "+body)
	}
	_, body := get(t, s.APIURL()+"/metrics", "")
	require.Contains(t, body, `collie_agents{state="healthy"} 0`)
	code, _ := get(t, s.APIURL()+"/nothing", "")
	require.Equal(t, http.StatusNotFound, code)
	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Stop(t.Context()), "twice")
	_, err := http.Get(s.APIURL() + "/healthz")
	require.Error(t, err)
}

func TestStopWithoutStart(t *testing.T) {
	t.Parallel()
	require.NoError(t, made(t, config(t)).Stop(t.Context()))
}

func TestNotReadyWhileItEnds(t *testing.T) {
	t.Parallel()
	s := made(t, config(t))
	s.Start()
	s.stopping.Store(true)
	code, body := get(t, s.APIURL()+"/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "ends")
}

// A start that fails gives back the port, the folder and the goroutines that it took.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	first := made(t, config(t))
	c := config(t)
	c.API.Listen = first.api.Addr().String()
	_, err := New(t.Context(), c, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "api: ")
	require.ErrorContains(t, err, "name another address with --listen")
	c.API.Listen = "127.0.0.1:0"
	made(t, c)

	_, err = New(t.Context(), c, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, c.DataDir+": in use by another collie server")
	require.NotContains(t, err.Error(), "unavailable", "not in the words of flock")
}

func TestAdminToken(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Dev = false
	s := made(t, c)
	s.Start()
	path := filepath.Join(c.DataDir, datadir.AdminToken)
	secret, err := os.ReadFile(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	code, _ := get(t, s.APIURL()+"/api/v1/tokens", "")
	require.Equal(t, http.StatusUnauthorized, code)
	code, _ = get(t, s.APIURL()+"/api/v1/tokens", "Bearer "+strings.TrimSpace(string(secret)))
	require.Equal(t, http.StatusOK, code)
}

// Own metrics and packages are for agents that were offered them.
func TestAgentTokens(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Dev = false
	s := made(t, c)
	const uid, other = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002"
	token := s.agentToken(uid)
	for header, want := range map[string]bool{
		"": false, "Bearer": false, "Bearer " + token: true, token: true, "Bearer " + token + "x": false,
		"Bearer " + agentTokenPrefix + other + token[len(agentTokenPrefix)+len(other):]: false, "Bearer " + agentTokenPrefix + "_": false,
	} {
		got, ok := s.agentOf(&http.Request{Header: http.Header{"Authorization": {header}}})
		require.Equal(t, want, ok, header)
		if ok {
			require.Equal(t, uid, got)
		}
	}
	s.Start()
	code, _ := get(t, "http://"+s.opamp.Addr().String()+"/v1/metrics", "")
	require.Equal(t, http.StatusUnauthorized, code)
}
