package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/datadir"
	"github.com/collie-otel/collie/internal/server/auth"
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
	metrics := "http://" + s.opamp.Addr().String() + "/v1/metrics"
	code, _ := get(t, metrics, "")
	require.Equal(t, http.StatusUnauthorized, code)
	code, _ = get(t, metrics, "Bearer "+token)
	require.Equal(t, http.StatusUnauthorized, code, "nobody knows this agent, or it was forgotten")

	secret, _, err := s.auth.Create(t.Context(), "test", auth.Request{Role: apiv1.RoleAgent, Uses: -1})
	require.NoError(t, err)
	parsed := uuid.MustParse(uid)
	hello, err := proto.Marshal(&protobufs.AgentToServer{InstanceUid: parsed[:], Capabilities: 1})
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.opamp.Addr().String()+"/v1/opamp", bytes.NewReader(hello))
	require.NoError(t, err)
	r.Close = true
	r.Header = http.Header{"Authorization": {"Bearer " + secret}, "Content-Type": {"application/x-protobuf"}}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	code, _ = get(t, metrics, "Bearer "+token)
	require.Equal(t, http.StatusMethodNotAllowed, code)
}

// Whoever has no token cannot hold a connection by a body that does not come to its end; streams and agents are not concerned.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Dev = false
	s := made(t, c)
	for _, l := range []*listener{s.opamp, s.api} {
		require.NotZero(t, l.http.ReadTimeout)
		l.http.ReadTimeout = 200 * time.Millisecond
	}
	s.Start()
	for address, path := range map[string]string{s.opamp.Addr().String(): "/v1/metrics", s.api.Addr().String(): "/api/v1/plans"} {
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx", path)
		require.NoError(t, err)
		answer, err := io.ReadAll(conn)
		require.NoError(t, err, "it is closed by the server")
		require.Contains(t, string(answer), "401 Unauthorized")
		require.NoError(t, conn.Close())
	}
	token, err := os.ReadFile(filepath.Join(c.DataDir, datadir.AdminToken))
	require.NoError(t, err)
	conn, err := net.Dial("tcp", s.api.Addr().String())
	require.NoError(t, err)
	_, err = fmt.Fprintf(conn, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n", strings.TrimSpace(string(token)))
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Second)))
	_, err = io.ReadAll(conn)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "a stream goes on")
	require.NoError(t, conn.Close())
}

// A database that was cut to nothing is not taken for a new one.
func TestEmptiedDatabase(t *testing.T) {
	t.Parallel()
	c := config(t)
	c.Dev = false
	require.NoError(t, made(t, c).Stop(t.Context()))
	admin, err := os.ReadFile(filepath.Join(c.DataDir, datadir.AdminToken))
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(c.DataDir, Database), 0))
	_, err = New(t.Context(), c, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "is empty, and was not: restore a backup")
	after, err := os.ReadFile(filepath.Join(c.DataDir, datadir.AdminToken))
	require.NoError(t, err)
	require.Equal(t, admin, after)
	require.NoError(t, os.Remove(filepath.Join(c.DataDir, Database)))
	made(t, c)
}

// Without tokens, a web page whose name resolves to this machine must not be an agent.
func TestPagesAreNoAgents(t *testing.T) {
	t.Parallel()
	s := made(t, config(t))
	for origin, want := range map[string]int{
		"": http.StatusUpgradeRequired, "http://localhost:4320": http.StatusUpgradeRequired, "http://evil.example.com:4320": http.StatusForbidden,
		"null": http.StatusForbidden, "%": http.StatusForbidden,
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/opamp", nil)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		s.opampHandler().ServeHTTP(w, r)
		require.Equal(t, want, w.Code, origin)
	}
}
