package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
)

var roles = []string{apiv1.RoleAgent, apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin}

// concrete fills the wildcards of a path with what does not exist.
func concrete(path string) string {
	return prefix + strings.NewReplacer("{uid}", uid1, "{name}", "none", "{version}", "1", "{id}", "none").Replace(path)
}

func TestEachRouteTakesItsRoles(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	expired, _, err := g.keeper.Create(t.Context(), "test", auth.Request{Role: apiv1.RoleAdmin, Uses: -1, Expires: 1})
	require.NoError(t, err)
	foreign := newGuarded(t).secrets[apiv1.RoleAdmin]
	before, err := g.store.Revision(t.Context())
	require.NoError(t, err)
	for i, route := range g.routes {
		name := route.method + " " + route.path
		for j, header := range []string{"", "Bearer " + expired, "Bearer " + foreign, "Basic YTpi"} {
			r := ask(route.method, concrete(route.path), "")
			r.RemoteAddr = fmt.Sprintf("10.%d.%d.1:1", i, j)
			r.Header.Set("Authorization", header)
			w := g.serve(r)
			refused(t, w, http.StatusUnauthorized)
			require.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer", name)
		}
		allowed := auth.AtLeast(route.role)
		require.NotContains(t, allowed, apiv1.RoleAgent, name)
		for _, role := range roles {
			if !slices.Contains(allowed, role) {
				refused(t, g.as(role, ask(route.method, concrete(route.path), "")), http.StatusForbidden)
			}
		}
	}
	require.Empty(t, g.control.all())
	after, err := g.store.Revision(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, after)
	// And those who may, get through.
	for _, route := range g.routes {
		if route.timeout >= 0 {
			w := g.as(route.role, ask(route.method, concrete(route.path), ""))
			require.NotContains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, w.Code, "%s %s: %s", route.method, route.path, w.Body)
			require.Less(t, w.Code, 500, "%s %s: %s", route.method, route.path, w.Body)
		}
	}
}

func TestReadingIsForViewersAndTheRestIsNot(t *testing.T) {
	t.Parallel()
	for _, route := range newDev(t).routes {
		viewer := route.method == http.MethodGet && !strings.HasPrefix(route.path, "/tokens")
		require.Equal(t, viewer, route.role == apiv1.RoleViewer, "%s %s", route.method, route.path)
	}
}

func TestFailuresAreLimited(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	var w *httptest.ResponseRecorder
	for range 30 {
		r := ask("GET", prefix+"/agents", "")
		r.Header.Set("Authorization", "Bearer guess")
		w = g.serve(r)
	}
	refused(t, w, http.StatusTooManyRequests)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	require.Equal(t, http.StatusOK, g.as(apiv1.RoleViewer, ask("GET", prefix+"/agents", "")).Code)
}

func TestOtherMethodsAndPaths(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	for method, path := range map[string]string{
		"PATCH": "/agents", "POST": "/configurations/base", "PUT": "/configurations/a/versions", "OPTIONS": "/rollouts", "TRACE": "/tokens",
		"DELETE": "/configurations/a/diff", "GET": "/rollouts/r/pause",
	} {
		w := g.do(method, path, "")
		refused(t, w, http.StatusMethodNotAllowed)
		require.NotEmpty(t, w.Header().Get("Allow"), path)
		require.NotContains(t, w.Header().Get("Allow"), method)
	}
	require.Equal(t, "GET, HEAD", g.do("POST", "/agents", "").Header().Get("Allow"))
	for _, path := range []string{
		"/", "/api", prefix, prefix + "/", prefix + "/nothing", prefix + "/agents/", prefix + "//agents", prefix + "/./agents",
		prefix + "/agents/../tokens", prefix + "/agents/%2e%2e/tokens", prefix + "/agents/%2E./tokens", prefix + "/agents/%00",
		prefix + "/configurations/team%2F..%2Fbase", prefix + "/configurations/..%2Fbase", prefix + "/configurations/a%5Cb",
		prefix + "/configurations/%ff", prefix + "/configurations//a", prefix + "/configurations/a//versions", prefix + "/configurations/versions/",
		prefix + "/rollouts/..%2Fr", prefix + "/plans/%0A", prefix + "/agents/%252e%252e", "/api/v2/agents", "/API/v1/agents",
		prefix + "/agents/" + strings.ToUpper(uid1[:35]) + "A", prefix + "/agents/'%20OR%201=1", "/..%2fapi/v1/agents",
	} {
		for _, method := range []string{"GET", "DELETE"} {
			w := g.serve(ask(method, path, ""))
			require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, w.Code, "%s %s", method, path)
			refused(t, w, w.Code)
		}
	}
	require.Empty(t, g.control.all())
}

func TestEveryAnswerHasItsHeaders(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	for _, path := range []string{"/agents", "/nothing", "/agents/x", "/openapi.yaml"} {
		h := g.do("GET", path, "").Header()
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
		require.Equal(t, "no-store", h.Get("Cache-Control"))
		require.Empty(t, h.Get("Access-Control-Allow-Origin"))
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method  string
		headers map[string]string
		host    string
		status  int
	}{
		"curl":                {"GET", nil, "127.0.0.1:4321", 200},
		"ipv6":                {"GET", nil, "[::1]:4321", 200},
		"localhost":           {"GET", nil, "localhost:4321", 200},
		"own page":            {"POST", map[string]string{"Sec-Fetch-Site": "same-origin"}, "localhost", 202},
		"other site":          {"POST", map[string]string{"Sec-Fetch-Site": "cross-site"}, "localhost", 403},
		"other site reads":    {"GET", map[string]string{"Sec-Fetch-Site": "cross-site"}, "localhost", 403},
		"other port":          {"POST", map[string]string{"Sec-Fetch-Site": "same-site"}, "localhost", 403},
		"old browser":         {"POST", map[string]string{"Origin": "http://evil.example"}, "localhost", 403},
		"old browser, null":   {"POST", map[string]string{"Origin": "null"}, "localhost", 403},
		"rebinding":           {"GET", nil, "evil.example:4321", 403},
		"rebinding localhost": {"GET", nil, "localhost.evil.example", 403},
		"any address":         {"GET", nil, "0.0.0.0:4321", 403},
		"other address":       {"GET", nil, "192.168.1.2", 403},
		"no host":             {"GET", nil, "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newDev(t)
			path := "/agents"
			if c.method == "POST" {
				path += "/" + uid1 + "/restart"
			}
			r := ask(c.method, prefix+path, "")
			r.Host = c.host
			for k, v := range c.headers {
				r.Header.Set(k, v)
			}
			w := g.serve(r)
			require.Equal(t, c.status, w.Code, w.Body)
			if c.status == 403 {
				refused(t, w, 403)
				require.Empty(t, g.control.all())
			}
		})
	}
	g := newGuarded(t)
	r := ask("GET", prefix+"/agents", "")
	r.Host = "collie.example.com"
	require.Equal(t, http.StatusOK, g.as(apiv1.RoleViewer, r).Code, "with tokens any name will do")
}

func TestContentTypeIsAsked(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json, text/plain", "application/jsonp"} {
		r := ask("POST", prefix+"/plans", `{"name": "a", "body": "a"}`)
		r.Header.Set("Content-Type", contentType)
		refused(t, g.serve(r), http.StatusUnsupportedMediaType)
	}
	r := ask("POST", prefix+"/plans", `{"name": "a", "body": "a"}`)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	require.Less(t, g.serve(r).Code, 300)
}

func TestErrorsOfControl(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	path := "/agents/" + uid1 + "/restart"
	for err, status := range map[error]int{
		store.ErrNotFound: 404, store.ErrConflict: 409, store.ErrUnfinished: 409, store.ErrInvalid: 400, ErrAway: 409, ErrCapability: 409, ErrBusy: 503,
		context.DeadlineExceeded: 503, errors.New("disk /var/secret is full"): 500,
	} {
		g.control.fail = func(string) error { return fmt.Errorf("restart: %w", err) }
		w := g.do("POST", path, "")
		detail := refused(t, w, status)
		require.Equal(t, errors.Is(err, store.ErrUnfinished), strings.HasSuffix(detail, "not finished: wait for its end, or abort it"), detail)
		require.Equal(t, status == 503, w.Header().Get("Retry-After") != "", detail)
		if status == 500 {
			require.NotContains(t, w.Body.String(), "secret")
			id := detail[strings.LastIndex(detail, " ")+1:]
			require.Contains(t, g.log.String(), "request_id="+id)
			require.Contains(t, g.log.String(), "/var/secret")
		}
	}
	g.control.fail = func(string) error { return fmt.Errorf("%w: there is no version 9", store.ErrInvalid) }
	require.Equal(t, "there is no version 9", refused(t, g.do("POST", path, ""), http.StatusBadRequest))
	g.control.fail = func(string) error { panic("secret cause") }
	w := g.do("POST", path, "")
	refused(t, w, http.StatusInternalServerError)
	require.NotContains(t, w.Body.String(), "secret")
	require.Contains(t, g.log.String(), "secret cause")
}

// A real server: deadlines are set and lifted, connections are used again, HEAD ends.
func TestOverTheWire(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	client := &http.Client{Timeout: 10 * time.Second}
	t.Cleanup(client.CloseIdleConnections)
	for range 3 {
		for _, method := range []string{"GET", "HEAD"} {
			for _, path := range []string{"/agents", "/openapi.yaml", "/nothing"} {
				r, err := http.NewRequestWithContext(t.Context(), method, server.URL+prefix+path, nil)
				require.NoError(t, err)
				w, err := client.Do(r)
				require.NoError(t, err)
				require.NotZero(t, w.ContentLength)
				require.NoError(t, w.Body.Close())
			}
		}
	}
	w, err := client.Head(server.URL + prefix + "/events")
	require.NoError(t, err)
	require.NoError(t, w.Body.Close())
	require.Equal(t, "text/event-stream", w.Header.Get("Content-Type"))
}

// deadlines records what is set on a connection.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.set = append(d.set, t); return nil }

// A deadline that stays would cut what is next on the connection.
func TestDeadlinesAreLifted(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	g.control.fail = func(string) error { panic("cause") }
	for _, path := range []string{"GET /agents", "GET /agents/none", "GET /agents?x=1", "POST /agents/" + uid1 + "/restart"} {
		method, path, _ := strings.Cut(path, " ")
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		g.ServeHTTP(w, ask(method, prefix+path, ""))
		require.NotEmpty(t, w.set)
		require.True(t, w.set[len(w.set)-1].IsZero(), path)
		require.True(t, strings.Contains(path, "?") || w.set[0].After(time.Now()), path)
	}
}

func TestAPanicIsNoWholeAnswer(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	g.mux.HandleFunc("GET "+prefix+"/half", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("{"))
		panic("half way")
	})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { g.do("GET", "/half", "") })
	require.Contains(t, g.log.String(), "half way")
}
