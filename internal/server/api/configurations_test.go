package api

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

func TestConfigurationsLive(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	odd := "receivers: {}\r\n# \u2028 <&> \U0001F415 \x00\t"
	for _, path := range []string{"/configurations/base", "/configurations/team/base", "/configurations/a%2Fversions", "/configurations/a%2fdiff"} {
		first := g.do("PUT", path, `{"selector": "a==b", "priority": 7, "body": `+quoted(odd)+`}`)
		require.Equal(t, `"1"`, first.Header().Get("ETag"))
		c := get[apiv1.Configuration](t, first, http.StatusCreated)
		require.Equal(t, odd, c.Body)
		require.Equal(t, "a=b", c.Selector)
		require.Equal(t, actorDev, c.Author)
		get[apiv1.Configuration](t, g.do("PUT", path, `{"body": "x: 1\ny: 2\n"}`), http.StatusOK)
		got := get[apiv1.Configuration](t, g.do("GET", path, ""), http.StatusOK)
		require.Equal(t, 2, got.Version)
		require.Equal(t, "x: 1\ny: 2\n", got.Body)
		versions := get[apiv1.Versions](t, g.do("GET", path+"/versions", ""), http.StatusOK).Versions
		require.Len(t, versions, 2)
		require.Equal(t, 2, versions[0].Version)
		require.Empty(t, versions[0].Body)
		v := get[apiv1.Version](t, g.do("GET", path+"/versions/1", ""), http.StatusOK)
		require.Equal(t, odd, v.Body)
		diff := g.do("GET", path+"/diff?from=1&to=2", "")
		require.Equal(t, http.StatusOK, diff.Code)
		require.Contains(t, diff.Body.String(), "\n+y: 2\n")
		require.Contains(t, diff.Body.String(), c.Name+"@1")
	}
	list := get[apiv1.Configurations](t, g.do("GET", "/configurations", ""), http.StatusOK).Configurations
	var names []string
	for _, c := range list {
		names = append(names, c.Name)
		require.Empty(t, c.Body)
		require.NotEmpty(t, c.Hash)
	}
	require.Equal(t, []string{"a/diff", "a/versions", "base", "team/base"}, names)
	same := get[apiv1.Configuration](t, g.do("GET", "/configurations/team%2Fbase", ""), http.StatusOK)
	require.Equal(t, "team/base", same.Name, "both ways of writing are one name")

	require.Equal(t, http.StatusNoContent, g.do("DELETE", "/configurations/team/base", "").Code)
	refused(t, g.do("GET", "/configurations/team%2Fbase", ""), http.StatusNotFound)
	refused(t, g.do("DELETE", "/configurations/team%2Fbase", ""), http.StatusNotFound)
}

func TestPreconditions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		versions int
		header   http.Header
		status   int
	}{
		"none":                 {2, nil, http.StatusOK},
		"matches":              {2, http.Header{"If-Match": {`"2"`}}, http.StatusOK},
		"is older":             {2, http.Header{"If-Match": {`"1"`}}, http.StatusPreconditionFailed},
		"is newer":             {2, http.Header{"If-Match": {`"3"`}}, http.StatusPreconditionFailed},
		"any":                  {2, http.Header{"If-Match": {`*`}}, http.StatusOK},
		"any, and none":        {0, http.Header{"If-Match": {`*`}}, http.StatusPreconditionFailed},
		"one, and none":        {0, http.Header{"If-Match": {`"1"`}}, http.StatusPreconditionFailed},
		"new, and is":          {0, http.Header{"If-None-Match": {`*`}}, http.StatusCreated},
		"new, and is not":      {1, http.Header{"If-None-Match": {`*`}}, http.StatusPreconditionFailed},
		"none, and none asked": {0, nil, http.StatusCreated},
		"no quotes":            {1, http.Header{"If-Match": {`1`}}, http.StatusBadRequest},
		"weak":                 {1, http.Header{"If-Match": {`W/"1"`}}, http.StatusBadRequest},
		"zero":                 {1, http.Header{"If-Match": {`"0"`}}, http.StatusBadRequest},
		"two":                  {1, http.Header{"If-Match": {`"1", "2"`}}, http.StatusBadRequest},
		"both":                 {1, http.Header{"If-Match": {`"1"`}, "If-None-Match": {"*"}}, http.StatusBadRequest},
		"none but one":         {1, http.Header{"If-None-Match": {`"1"`}}, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newDev(t)
			for range c.versions {
				require.Less(t, g.do("PUT", "/configurations/base", `{"body": "a: 1"}`).Code, 300)
			}
			r := ask("PUT", prefix+"/configurations/base", `{"body": "b: 1"}`)
			for k, v := range c.header {
				r.Header[k] = v
			}
			w := g.serve(r)
			require.Equal(t, c.status, w.Code, w.Body)
			if c.status >= 400 {
				refused(t, w, c.status)
				require.Len(t, g.control.all(), c.versions)
			}
		})
	}
}

func TestBadConfigurationsAreRefused(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	long := strings.Repeat("a", 129)
	for _, path := range []string{"/Base", "/a/b/c", "/a%2Fb%2Fc", "/-a", "/a%20b", "/" + long, "/a;DROP%20TABLE%20agents", "/a%2Fb/c", "/a'--"} {
		refused(t, g.do("PUT", "/configurations"+path, `{"body": "a: 1"}`), http.StatusBadRequest)
		refused(t, g.do("GET", "/configurations"+path, ""), http.StatusNotFound)
	}
	for body, detail := range map[string]string{
		``:                                   "",
		`{"body": ""}`:                       "empty",
		`{"body": " \n\t"}`:                  "empty",
		`{}`:                                 "empty",
		`{"body": "a", "priority": 9999999}`: "priority",
		`{"body": "a", "priority": "1"}`:     `"priority"`,
		`{"body": "a", "priority": 1.5}`:     `"priority"`,
		`{"body": "a", "selector": "a ="b"}`: "not JSON",
		`{"body": "a", "selector": "a in"}`:  "selector",
		`{"body": "a", "author": "me"}`:      `"author"`,
		`{"body": "a"} {}`:                   "after",
		`{"body": "a"}]`:                     "after",
		`null`:                               "object",
		`[]`:                                 "object",
		`{"body": "` + "\xff" + `"}`:         "UTF-8",
		`{"body": "\ud800"}`:                 "UTF-8",
		`{"body": "\udc00\ud800"}`:           "UTF-8",
	} {
		r := ask("PUT", prefix+"/configurations/base", body)
		r.Header.Set("Content-Type", "application/json")
		require.Contains(t, refused(t, g.serve(r), http.StatusBadRequest), detail, body)
	}
	get[apiv1.Configuration](t, g.do("PUT", "/configurations/base", `{"body": "\\ud800 \ud83d\udc15"}`), http.StatusCreated)
	require.Len(t, g.control.all(), 1)

	for _, query := range []string{"", "?from=1", "?from=0&to=1", "?from=x&to=1", "?from=1&from=1&to=1", "?from=1&to=1&x=1", "?from=%zz&to=1"} {
		refused(t, g.do("GET", "/configurations/base/diff"+query, ""), http.StatusBadRequest)
	}
	refused(t, g.do("GET", "/configurations/base/diff?from=1&to=2", ""), http.StatusNotFound)
	refused(t, g.do("GET", "/configurations/base/versions/0", ""), http.StatusNotFound)
	refused(t, g.do("GET", "/configurations/base/versions/99999999999999999999", ""), http.StatusNotFound)
}

func TestHugeBodiesAreRefused(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	huge := `{"body": "` + strings.Repeat("a", maxLarge) + `"}`
	refused(t, g.do("PUT", "/configurations/base", huge), http.StatusRequestEntityTooLarge)
	refused(t, g.do("POST", "/plans", huge), http.StatusRequestEntityTooLarge)
	refused(t, g.do("PUT", "/configurations/base", huge[:17<<20]+`"}`), http.StatusRequestEntityTooLarge)
	refused(t, g.do("POST", "/rollouts", huge[:maxSmall+1]), http.StatusRequestEntityTooLarge)
	require.Empty(t, g.control.all())
	get[apiv1.Configuration](t, g.do("PUT", "/configurations/base", `{"body": "`+strings.Repeat(`\n`, 8<<20)+`a"}`), http.StatusCreated)
}

// What costs seconds and gigabytes to compare is for whoever wants to know.
func TestLargeDiffs(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	for _, size := range []int{maxDiff / 2, maxDiff/2 - 2, maxDiff/2 + 2} {
		saved := g.do("PUT", "/configurations/base", `{"body": `+quoted(strings.Repeat("a\n", size/2))+`}`)
		require.Less(t, saved.Code, 300, saved.Body)
	}
	require.Equal(t, http.StatusOK, g.do("GET", "/configurations/base/diff?from=1&to=2", "").Code)
	require.Contains(t, refused(t, g.do("GET", "/configurations/base/diff?from=1&to=3", ""), http.StatusConflict), "compare them")
	g.comparing <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	refused(t, g.serve(ask("GET", prefix+"/configurations/base/diff?from=1&to=2", "").WithContext(ctx)), http.StatusServiceUnavailable)
}
