package main

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

func exampleConfig() apiv1.Configuration {
	return apiv1.Configuration{
		Name: "edge/gw", Version: 3, Selector: "service.name=gw", Priority: 10, Body: "a: 1\n", Hash: "0123456789abcdef", Author: "t-1",
		ReleasedVersion: 2, CreatedAt: before(50 * time.Hour), UpdatedAt: before(3 * time.Minute),
	}
}

func TestConfigApplySavesAndKeepsWhatWasNotGiven(t *testing.T) {
	t.Parallel()
	body := file(t, "a: 2\n")
	for name, tt := range map[string]struct{ flags, sent string }{
		"nothing":  {"", `{"selector":"service.name=gw","priority":10,"body":"a: 2\n"}`},
		"selector": {"--selector a=b", `{"selector":"a=b","priority":10,"body":"a: 2\n"}`},
		"all":      {"--selector= --priority 0", `{"selector":"","priority":0,"body":"a: 2\n"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newFakeServer(t, answers{
				"GET /configurations/{name}": func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("ETag", `"3"`)
					write(w, r, exampleConfig())
				},
				"PUT /configurations/{name}": func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("If-Match") != `"3"` || r.PathValue("name") != "edge/gw" {
						write(w, r, apiv1.Problem{Status: 412, Detail: "there is a newer version"})
						return
					}
					write(w, r, apiv1.Configuration{Name: "edge/gw", Version: 4, ReleasedVersion: 2})
				},
			})
			code, stdout, stderr := server.run(t, "config apply --name edge/gw -f "+body+" "+tt.flags)
			require.Equal(t, exitDone, code, stderr)
			require.Equal(t, "edge/gw: saved version 4; no agent was touched: bring it to them with collie rollout start edge/gw@4\n", stdout)
			require.Equal(t, []string{"GET /configurations/edge%2Fgw", "PUT /configurations/edge%2Fgw " + tt.sent}, server.asked())
		})
	}
}

func TestConfigApplyOfANewName(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"GET /configurations/{name}": apiv1.Problem{Status: 404, Detail: "no such configuration"},
		"PUT /configurations/{name}": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("If-None-Match") != "*" {
				t.Error("somebody else's version would be followed by this one")
			}
			write(w, r, apiv1.Configuration{Name: "gw", Version: 1})
		},
	})
	code, stdout, stderr := server.run(t, "config apply --name gw -f "+file(t, "x"))
	require.Equal(t, exitDone, code, stderr)
	require.Contains(t, stdout, "gw: saved version 1; no agent was touched: ")
	require.Contains(t, server.asked(), `PUT /configurations/gw {"selector":"","priority":0,"body":"x"}`)
}

func TestConfigApplySavesNothingTwice(t *testing.T) {
	t.Parallel()
	same := file(t, exampleConfig().Body)
	released := exampleConfig()
	released.ReleasedVersion = 3
	for name, tt := range map[string]struct {
		config      apiv1.Configuration
		flags, want string
	}{
		"not rolled out": {exampleConfig(), "", "edge/gw: unchanged, version 3 is like this; no agent was touched: bring it to them with collie rollout start edge/gw@3\n"},
		"same selector":  {exampleConfig(), "--selector service.name==gw --priority 10", "unchanged"},
		"rolled out":     {released, "", "edge/gw: unchanged, version 3 is like this; no agent was touched\n"},
		"no rollout":     {released, "--rollout", "edge/gw: unchanged, and version 3 is rolled out: nothing to do\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newFakeServer(t, answers{"GET /configurations/{name}": tt.config})
			code, stdout, stderr := server.run(t, "config apply --name edge/gw -f "+same+" "+tt.flags)
			require.Equal(t, exitDone, code, stderr)
			require.Contains(t, stdout, tt.want)
			require.Len(t, server.asked(), 1)
		})
	}
}

func TestConfigApplyOfBadFiles(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	for path, want := range map[string]string{
		"/nowhere/at/all":      "--file: open /nowhere/at/all: no such file or directory\n",
		file(t, "a: \xff"):     "is not UTF-8: a configuration is text\n",
		file(t, bigText(t)):    "has more than 16777216 bytes\n",
		"/" /* a directory */ : "is a directory\n",
	} {
		code, _, stderr := server.run(t, "config apply --name gw -f "+path)
		require.Equal(t, exitFailed, code)
		require.True(t, strings.HasSuffix(stderr, want), stderr)
	}
	require.Empty(t, server.asked())
}

func bigText(t *testing.T) string {
	t.Helper()
	return strings.Repeat("x", 16<<20+1)
}

func TestConfigShows(t *testing.T) {
	t.Parallel()
	second := apiv1.Version{Configuration: "edge/gw", Version: 2, Body: "a: 0", CreatedAt: before(50 * time.Hour), Author: "dev", Hash: "ffffffffffff", Released: true}
	server := newFakeServer(t, answers{
		"GET /configurations":                            apiv1.Configurations{Configurations: []apiv1.Configuration{exampleConfig(), {Name: "new", Version: 1, UpdatedAt: before(time.Hour)}}},
		"GET /configurations/{name}":                     exampleConfig(),
		"GET /configurations/{name}/versions":            apiv1.Versions{Versions: []apiv1.Version{newestVersion(exampleConfig()), second}},
		"GET /configurations/{name}/versions/{n}":        second,
		"GET /configurations/{name}/diff":                "--- a\n+++ b\n@@ -1 +1 @@\n-a: 0\n+a: 1\x1b[2J\n",
		"DELETE /configurations/{name}":                  "",
		"GET /configurations/{name}/versions/{n}/events": "",
	})
	for line, want := range map[string][2]string{
		"config get edge/gw":              {"a: 1\n", "# edge/gw@3 for service.name=gw, priority 10, saved 3m ago by t-1\n"},
		"config get edge/gw@2":            {"a: 0", "# edge/gw@2 for all agents, priority 0, saved 2d ago by dev, rolled out\n"},
		"config diff edge/gw@2 edge/gw@3": {"--- a\n+++ b\n@@ -1 +1 @@\n-a: 0\n+a: 1?[2J\n", ""},
		"config diff edge/gw@v2":          {"--- a\n+++ b\n@@ -1 +1 @@\n-a: 0\n+a: 1?[2J\n", ""},
		"config delete edge/gw":           {"edge/gw is deleted, and taken from the agents that have it\n", ""},
	} {
		code, stdout, stderr := server.run(t, line)
		require.Equal(t, exitDone, code, stderr)
		require.Equal(t, want, [2]string{stdout, stderr}, line)
	}
	for line, name := range map[string]string{"config list": "configs", "config history edge/gw": "versions"} {
		code, stdout, stderr := server.run(t, line)
		require.Equal(t, exitDone, code, stderr)
		golden(t, name, stdout)
	}
	require.Contains(t, server.asked(), "GET /configurations/edge%2Fgw/diff?from=2&to=3")
}

// TestConfigApplyReadsTheStandardInput is not parallel: there is one standard input.
func TestConfigApplyReadsTheStandardInput(t *testing.T) {
	input, err := os.Open(file(t, "from: elsewhere\n"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, input.Close()) })
	own := os.Stdin
	t.Cleanup(func() { os.Stdin = own })
	os.Stdin = input
	server := newFakeServer(t, answers{
		"GET /configurations/{name}": apiv1.Problem{Status: 404}, "PUT /configurations/{name}": apiv1.Configuration{Name: "gw", Version: 1},
	})
	code, stdout, stderr := server.run(t, "config apply --name gw -f - -o json")
	require.Equal(t, exitDone, code, stderr)
	require.Contains(t, stdout, `"version": 1`)
	require.Contains(t, server.asked(), `PUT /configurations/gw {"selector":"","priority":0,"body":"from: elsewhere\n"}`)
}
