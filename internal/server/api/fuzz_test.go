package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRequests: whatever is sent, the answer is a success or says what was wrong, and what was refused changed nothing.
func FuzzRequests(f *testing.F) {
	for _, seed := range [][4]string{
		{"PUT", "/configurations/team/base", "", `{"selector": "a=b", "priority": 1, "body": "a: 1"}`},
		{"PUT", "/configurations/a%2Fversions", "", `{"body": "\ud800"}`},
		{"PUT", "/configurations/base", "", `{"body": "a"} x`},
		{"GET", "/configurations/base/versions/1", "", ""},
		{"GET", "/configurations/base/diff", "from=1&to=1", ""},
		{"GET", "/agents", "selector=a+in+(b)&state=healthy&q=x&limit=3", ""},
		{"GET", "/agents/" + uid1 + "/events", "cursor=4", ""},
		{"POST", "/plans", "wait=1ms", `{"name": "a", "body": "a"}`},
		{"POST", "/rollouts", "", `{"configuration": "base", "canary": 1, "waves": ["10%"], "soak": "1s"}`},
		{"PUT", "/connections/a", "", `{"opamp": {"endpoint": "ws://x", "headers": {"a": "b"}}, "other": {"x": {"endpoint": "http://y"}}}`},
		{"PUT", "/packages/offers/a", "", `{"version": "1", "selector": "!a"}`},
		{"DELETE", "/agents/%2e%2e", "", ""},
		{"POST", "/rollouts/r/abort", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	g := newDev(f)
	seen := 0
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		u := &url.URL{Scheme: "http", Host: "localhost", RawQuery: query}
		raw := prefix + "/" + strings.TrimLeft(path, "/")
		unescaped, err := url.PathUnescape(raw)
		if err != nil || unescaped == prefix+"/events" {
			return
		}
		u.Path, u.RawPath = unescaped, raw
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Method, r.URL, r.Host = method, u, "localhost"
		r.Header.Set("Content-Type", "application/json")
		before, err := g.store.Revision(t.Context())
		require.NoError(t, err)
		w := g.serve(r)
		if w.Code >= 200 && w.Code < 300 {
			seen = len(g.control.all())
			return
		}
		require.True(t, w.Code >= 400 && w.Code < 500, "%d: %s\n%s", w.Code, w.Body, g.log)
		refused(t, w, w.Code)
		after, err := g.store.Revision(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Len(t, g.control.all(), seen)
	})
}
