package client

import (
	"context"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/collie-otel/collie/internal/apiv1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newClient serves a handler and returns a client of it.
func newClient(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := New(Options{Server: server.URL, Token: "secret"})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func answer(t *testing.T, w http.ResponseWriter, text string) {
	t.Helper()
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
}

func TestEachMethodHasItsRoute(t *testing.T) {
	t.Parallel()
	var got string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Method + " " + r.URL.RequestURI()
		if len(body) > 0 {
			got += " " + string(body)
		}
		if r.Header.Get("Authorization") != "Bearer secret" {
			got += " without the token"
		}
		answer(t, w, "{}")
	})
	ctx := t.Context()
	for want, call := range map[string]func() error{
		"GET /api/v1/agents?cursor=c&limit=2&q=x&selector=a%3Db&state=healthy": func() error {
			_, err := c.Agents(ctx, AgentQuery{Selector: "a=b", State: "healthy", Text: "x", Limit: 2, Cursor: "c"})
			return err
		},
		"GET /api/v1/agents/u":                    func() error { _, err := c.Agent(ctx, "u"); return err },
		"GET /api/v1/agents/u/effective-config":   func() error { _, err := c.EffectiveConfig(ctx, "u"); return err },
		"GET /api/v1/agents/u/desired-config":     func() error { _, err := c.DesiredConfig(ctx, "u"); return err },
		"GET /api/v1/agents/u/components":         func() error { _, err := c.Components(ctx, "u"); return err },
		"GET /api/v1/agents/u/throughput":         func() error { _, err := c.Throughput(ctx, "u"); return err },
		"DELETE /api/v1/agents/u":                 func() error { return c.Forget(ctx, "u") },
		"POST /api/v1/agents/u/restart":           func() error { return c.Restart(ctx, "u") },
		"POST /api/v1/agents/u/rotate-credential": func() error { return c.RotateCredential(ctx, "u") },
		"GET /api/v1/agents/u/events?limit=3":     func() error { _, err := c.AgentEvents(ctx, "u", 3, ""); return err },
		"GET /api/v1/rollouts/r/events?cursor=9":  func() error { _, err := c.RolloutEvents(ctx, "r", 0, "9"); return err },
		"GET /api/v1/audit":                       func() error { _, err := c.Audit(ctx, 0, ""); return err },
		"GET /api/v1/configurations":              func() error { _, err := c.Configurations(ctx); return err },
		"GET /api/v1/configurations/edge%2Fgw":    func() error { _, _, err := c.Configuration(ctx, "edge/gw"); return err },
		`PUT /api/v1/configurations/edge%2Fgw {"selector":"a=b","priority":1,"body":"x: 1\n"}`: func() error {
			_, err := c.SaveConfiguration(ctx, "edge/gw", apiv1.SaveConfiguration{Selector: "a=b", Priority: 1, Body: "x: 1\n"}, "")
			return err
		},
		"DELETE /api/v1/configurations/gw":               func() error { return c.DeleteConfiguration(ctx, "gw") },
		"GET /api/v1/configurations/gw/versions":         func() error { _, err := c.Versions(ctx, "gw"); return err },
		"GET /api/v1/configurations/gw/versions/3":       func() error { _, err := c.Version(ctx, "gw", 3); return err },
		"GET /api/v1/configurations/gw/diff?from=1&to=2": func() error { _, err := c.Diff(ctx, "gw", 1, 2); return err },
		`POST /api/v1/plans?wait=2s {"name":"gw","body":"x"}`: func() error {
			_, err := c.Plan(ctx, apiv1.PlanRequest{Name: "gw", Body: "x"}, 2*time.Second)
			return err
		},
		"GET /api/v1/plans/p":      func() error { _, err := c.GetPlan(ctx, "p"); return err },
		"GET /api/v1/rollouts":     func() error { _, err := c.Rollouts(ctx); return err },
		"GET /api/v1/rollouts/r":   func() error { _, err := c.Rollout(ctx, "r"); return err },
		"GET /api/v1/tokens":       func() error { _, err := c.Tokens(ctx); return err },
		"DELETE /api/v1/tokens/t":  func() error { return c.RevokeToken(ctx, "t") },
		"GET /api/v1/connections":  func() error { _, err := c.Connections(ctx); return err },
		"GET /api/v1/packages":     func() error { _, err := c.Packages(ctx); return err },
		"GET /api/v1/agents/a%3Fb": func() error { _, err := c.Agent(ctx, "a?b"); return err },
		`POST /api/v1/rollouts {"configuration":"gw"}`: func() error {
			_, err := c.StartRollout(ctx, apiv1.RolloutRequest{Configuration: "gw"})
			return err
		},
		"POST /api/v1/rollouts/r/pause":  func() error { _, err := c.PauseRollout(ctx, "r"); return err },
		"POST /api/v1/rollouts/r/resume": func() error { _, err := c.ResumeRollout(ctx, "r"); return err },
		"POST /api/v1/rollouts/r/abort":  func() error { _, err := c.AbortRollout(ctx, "r"); return err },
		`POST /api/v1/tokens {"role":"agent"}`: func() error {
			_, err := c.CreateToken(ctx, apiv1.TokenRequest{Role: apiv1.RoleAgent})
			return err
		},
		"GET /api/v1/connections/n": func() error { _, err := c.Connection(ctx, "n"); return err },
		`PUT /api/v1/connections/n {"name":"n","selector":"","priority":0}`: func() error {
			return c.SaveConnection(ctx, apiv1.Connection{Name: "n"})
		},
		"DELETE /api/v1/connections/n": func() error { return c.DeleteConnection(ctx, "n") },
		`PUT /api/v1/packages/offers/n {"name":"n","selector":"","priority":0,"version":"1"}`: func() error {
			return c.SavePackageOffer(ctx, apiv1.PackageOffer{Name: "n", Version: "1"})
		},
		"DELETE /api/v1/packages/offers/n": func() error { return c.DeletePackageOffer(ctx, "n") },
	} {
		require.NoError(t, call(), want)
		require.Equal(t, want, got)
	}
}

func TestNamesThatWouldLeadElsewhereAreNotSent(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(http.ResponseWriter, *http.Request) { t.Error("sent") })
	for _, name := range []string{"", ".", ".."} {
		require.ErrorContains(t, c.Forget(t.Context(), name), "is no name")
	}
}

func TestAllAgentsGoesThroughThePages(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("cursor") {
		case "":
			answer(t, w, `{"agents": [{"instance_uid": "a"}], "next_cursor": "1", "total": 2}`)
		case "1":
			answer(t, w, `{"agents": [{"instance_uid": "b"}], "next_cursor": "1", "total": 2}`)
		}
	})
	all, err := c.AllAgents(t.Context(), AgentQuery{})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, []string{all.Agents[0].InstanceUID, all.Agents[1].InstanceUID})
	require.Equal(t, 2, all.Total)
	require.Empty(t, all.NextCursor)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    string
		status  int
	}{
		"problem": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			answer(t, w, `{"title": "Conflict", "status": 409, "detail": "the agent is connected"}`)
		}, "the agent is connected", 409},
		"title": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			answer(t, w, `{"title": "Not Found"}`)
		}, "Not Found", 404},
		"no problem": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }, "HTTP 502 Bad Gateway", 502},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example.com/", http.StatusFound)
		}, "HTTP 302 Found to https://elsewhere.example.com/", 302},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			answer(t, w, strings.Repeat("x", maxProblem+1))
		}, "HTTP 500 Internal Server Error", 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, tt.handler).Agent(t.Context(), "u")
			require.EqualError(t, err, tt.want)
			require.True(t, IsStatus(err, tt.status))
		})
	}
}

func TestAnswersOfSomethingElse(t *testing.T) {
	t.Parallel()
	_, err := newClient(t, func(w http.ResponseWriter, _ *http.Request) { answer(t, w, "<html>") }).Agent(t.Context(), "u")
	require.ErrorIs(t, err, ErrAnswer)
	_, err = newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range maxAnswer>>20 + 1 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}).Agent(t.Context(), "u")
	require.ErrorContains(t, err, "longer than 67108864 bytes")
}

func TestRequestsEnd(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c.timeout = 10 * time.Millisecond
	_, err := c.Agent(t.Context(), "u")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestTagsGoThereAndBack(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && r.Header.Get("If-None-Match") == "*" {
			w.WriteHeader(http.StatusConflict)
			return
		}
		if r.Method == http.MethodPut && r.Header.Get("If-Match") != `"7"` {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		w.Header().Set("ETag", `"7"`)
		answer(t, w, `{"version": 7}`)
	})
	_, tag, err := c.Configuration(t.Context(), "gw")
	require.NoError(t, err)
	_, err = c.SaveConfiguration(t.Context(), "gw", apiv1.SaveConfiguration{}, tag)
	require.NoError(t, err)
	_, err = c.SaveConfiguration(t.Context(), "gw", apiv1.SaveConfiguration{}, `"6"`)
	require.True(t, IsStatus(err, http.StatusPreconditionFailed))
	_, err = c.SaveConfiguration(t.Context(), "gw", apiv1.SaveConfiguration{}, Absent)
	require.True(t, IsStatus(err, http.StatusConflict))
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o    Options
		want string
	}{
		"default":              {Options{Token: "t"}, ""},
		"https":                {Options{Server: "https://collie.example.com/base/", Token: "t"}, ""},
		"plain, no token":      {Options{Server: "http://collie.example.com"}, ""},
		"plain":                {Options{Server: "http://collie.example.com", Token: "t"}, "in plain text: use https"},
		"plain, told":          {Options{Server: "http://collie.example.com", Token: "t", PlaintextToken: true}, ""},
		"plain, loopback":      {Options{Server: "http://[::1]:80", Token: "t"}, ""},
		"plain, localhost":     {Options{Server: "http://localhost:80", Token: "t"}, ""},
		"plain, like loopback": {Options{Server: "http://127.0.0.1.example.com", Token: "t"}, "in plain text"},
		"no scheme":            {Options{Server: "127.0.0.1:4321"}, "is no URL of a server"},
		"other scheme":         {Options{Server: "ftp://a"}, "is no URL of a server"},
		"password":             {Options{Server: "http://a:b@c"}, `"http://a:xxxxx@c": want no user`},
		"query":                {Options{Server: "http://c?x"}, "want no user"},
		"token":                {Options{Token: "a\nb"}, "characters that no token has"},
		"no CA file":           {Options{CAFile: "/nowhere"}, "read the CA certificates"},
		"bad CA file":          {Options{CAFile: "client_test.go"}, "holds no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := New(tt.o)
			if tt.want == "" {
				require.NoError(t, err)
				require.False(t, strings.HasSuffix(c.Server(), "/"))
				return
			}
			require.ErrorContains(t, err, tt.want)
		})
	}
	require.True(t, IsLoopback(""))
	require.True(t, IsLoopback("https://127.0.0.2"))
	require.False(t, IsLoopback("https://collie.example.com"))
	require.False(t, IsLoopback("x"))
}

func TestCAFile(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(t, w, "{}") }))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	c, err := New(Options{Server: server.URL, CAFile: file, Token: "t"})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	_, err = c.Agent(t.Context(), "u")
	require.NoError(t, err)
}
