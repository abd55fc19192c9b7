package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/datadir"
)

func TestBadUsageSendsNothing(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	for line, want := range map[string]string{
		"agents nope":                                      `collie agents: there is no command "nope"`,
		"agents list extra":                                `collie agents list: takes no arguments, got "extra"`,
		"agents list -o xml":                               `collie agents list: --output must be table, json or yaml, got "xml"`,
		"agents list --state ill":                          `collie agents list: --state: "ill" is no state of an agent`,
		"agents list -l (":                                 "collie agents list: --selector: ",
		"agents list --watch -o json":                      "collie agents list: --watch shows tables only",
		"agents get":                                       "collie agents get: needs UID",
		"agents get a b":                                   `collie agents get: takes no more than UID, got "b"`,
		"agents events x --limit -1":                       "collie agents events: --limit must be 0 or more",
		"audit --limit -1":                                 "collie audit: --limit must be 0 or more",
		"config apply":                                     "collie config apply: needs --file",
		"config apply -f x":                                "collie config apply: needs --name",
		"config apply -f x --name X":                       `collie config apply: "X" is no name of a configuration`,
		"config apply -f x --name x --canary 1":            "collie config apply: --canary is for a rollout: add --rollout",
		"config apply -f x --name x --priority 1000001":    "collie config apply: --priority must be from -1000000 to 1000000",
		"config apply -f x --name x --rollout --waves 5,1": "collie config apply: waves: 1%: want percentages",
		"config get x@y":                                   `collie config get: "x@y": want NAME or NAME@V`,
		"config get x@0":                                   `collie config get: "x@0": want NAME or NAME@V`,
		"config diff x":                                    "collie config diff: x: name the version to begin with, as x@1",
		"config diff x@1 y@2":                              "collie config diff: want two versions of one configuration",
		"config history X":                                 `collie config history: "X" is no name`,
		"config delete X":                                  `collie config delete: "X" is no name`,
		"plan --name x":                                    "collie plan: needs --file",
		"plan -f x --name x --selector (":                  "collie plan: --selector: ",
		"rollout start X":                                  `collie rollout start: "X" is no name`,
		"rollout start x --canary 200%":                    "collie rollout start: --canary: ",
		"rollout start x --waves x":                        `collie rollout start: --waves: "x": want percentages, like 10%,50%,100%`,
		"rollout start x --soak -1s":                       "collie rollout start: soak, timeout, max_failures: want none below zero",
		"rollout status a b":                               `collie rollout status: takes no more than [ID], got "b"`,
		"rollout abort":                                    "collie rollout abort: needs ID",
		"token create":                                     "collie token create: --role must be one of agent, viewer, operator, admin, got \"\"",
		"token create --role agent --uses 0":               "collie token create: --uses must be 1 or more",
		"token create --role admin --uses 1":               "collie token create: --uses must be 1 or more, and is for the role agent",
		"token create --role admin --expires never":        `collie token create: --expires must be like 12h or 30d, got "never"`,
		"token create --role admin --expires 0d":           `collie token create: --expires must be like 12h or 30d, got "0d"`,
		"connections apply -f x":                           "collie connections apply: needs --name",
		"packages offer x --selector a":                    "collie packages offer: needs --version",
		"packages offer x --version 1":                     "collie packages offer: needs --selector",
		"audit --token a\x01b":                             "collie audit: the token has characters that no token has",
	} {
		code, stdout, stderr := server.run(t, line)
		require.Equal(t, exitUsage, code, "%s: %s", line, stderr)
		require.Empty(t, stdout, line)
		require.True(t, strings.HasPrefix(stderr, want), "%s: got %q", line, stderr)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "one line")
	}
	require.Empty(t, server.asked())
}

func TestBadServersAreUsage(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{
		"--server 127.0.0.1:4321":                    `"127.0.0.1:4321" is no URL of a server: want one like http://127.0.0.1:4321`,
		"--server http://example.invalid --token t":  "the token would cross the network to example.invalid in plain text: use https",
		"--server http://127.0.0.1 --ca-file /no/ca": "read the CA certificates",
	} {
		code, _, stderr := collie(t.Context(), append([]string{"audit"}, strings.Fields(flags)...)...)
		require.Equal(t, exitUsage, code)
		require.Contains(t, stderr, want)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer any
		want   string
	}{
		"no token": {apiv1.Problem{Status: 401, Detail: "send a header"}, "the server wants a token: give one with --token or COLLIE_TOKEN, " +
			"or the server's folder with COLLIE_DATA_DIR (there is no " + adminToken() + ")\n"},
		"role":      {apiv1.Problem{Status: 403, Detail: "a viewer may not"}, "a viewer may not: use a token of a role that may do this; an admin makes one with collie token create\n"},
		"stale":     {apiv1.Problem{Status: 412, Detail: "version 4 is newer"}, "version 4 is newer: run the command again to begin from what is there now\n"},
		"too many":  {apiv1.Problem{Status: 429, Detail: "too many failures"}, "too many failures: try again later\n"},
		"not found": {apiv1.Problem{Status: 404, Detail: "no such\x1b[2J thing"}, "no such?[2J thing\n"},
		"not ours":  {"<html>", "not an answer of the API: invalid character '<' looking for beginning of value: check --server and COLLIE_SERVER\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := newFakeServer(t, answers{"GET /audit": tt.answer}).run(t, "audit")
			require.Equal(t, exitFailed, code)
			require.Empty(t, stdout)
			require.True(t, strings.HasSuffix(stderr, tt.want), stderr)
		})
	}
	code, _, stderr := collie(t.Context(), "audit")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "collie audit: http://127.0.0.1:1 cannot be reached: dial tcp 127.0.0.1:1: connect: connection refused: "+
		"start collie server, or name another one with --server or COLLIE_SERVER\n")

	secured := httptest.NewUnstartedServer(http.NotFoundHandler())
	secured.Config.ErrorLog = quiet()
	secured.StartTLS()
	t.Cleanup(secured.Close)
	_, _, stderr = collie(t.Context(), "audit", "--server", secured.URL)
	require.Contains(t, stderr, "certificate signed by unknown authority: name the certificates to trust with --ca-file or COLLIE_CA_FILE\n")
	_, _, stderr = collie(t.Context(), "audit", "--server", strings.Replace(secured.URL, "https", "http", 1))
	require.Contains(t, stderr, "collie audit: the server speaks https only: write its URL with https://\n")

	other := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(other.Close)
	_, _, stderr = collie(t.Context(), "audit", "--server", other.URL)
	require.Equal(t, "collie audit: HTTP 404 Not Found: what answers at "+strings.TrimPrefix(other.URL, "http://")+" is no collie server\n", stderr)

	refusing := newFakeServer(t, answers{"GET /audit": apiv1.Problem{Status: 401, Detail: "the token is unknown"}})
	_, _, stderr = refusing.run(t, "audit --token t")
	require.Equal(t, "collie audit: the token is unknown: give a valid one with --token or COLLIE_TOKEN\n", stderr)
}

// TestWhereTheCertificatesComeFrom is not parallel: it sets the environment.
func TestWhereTheCertificatesComeFrom(t *testing.T) {
	t.Setenv(caVariable, "/no/ca")
	code, _, stderr := collie(t.Context(), "audit")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "open /no/ca")
}

// TestWhereTheTokenComesFrom is not parallel: it sets the environment.
func TestWhereTheTokenComesFrom(t *testing.T) {
	var got string
	server := newFakeServer(t, answers{"GET /audit": func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		write(w, r, apiv1.Events{})
	}})
	dir := t.TempDir()
	ask := func(flags ...string) string {
		code, _, stderr := collie(t.Context(), append([]string{"audit"}, flags...)...)
		require.Equal(t, exitDone, code, stderr)
		return got
	}
	t.Setenv(serverVariable, server.url)
	t.Setenv(datadir.Variable, dir)
	require.Empty(t, ask())
	require.NoError(t, os.WriteFile(filepath.Join(dir, datadir.AdminToken), []byte("of the machine\n"), 0o600))
	code, _, _ := collie(t.Context(), "audit")
	require.Equal(t, exitUsage, code, "no token has spaces")
	require.NoError(t, os.WriteFile(filepath.Join(dir, datadir.AdminToken), []byte("machine\n"), 0o600))
	require.Equal(t, "Bearer machine", ask())
	t.Setenv(tokenVariable, "environment")
	require.Equal(t, "Bearer environment", ask())
	require.Equal(t, "Bearer flag", ask("--token", "flag"))

	t.Setenv(tokenVariable, "")
	require.Empty(t, (&remote{server: "https://collie.example.com"}).options().Token, "it is for this machine alone")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"GET /agents":         apiv1.Agents{Agents: exampleAgents()},
		"GET /configurations": apiv1.Configurations{Configurations: []apiv1.Configuration{{Name: "edge/gw", Version: 2}, {Name: "other", Version: 1}}},
		"GET /rollouts":       apiv1.Rollouts{Rollouts: []apiv1.Rollout{exampleRollout("running")}},
		"GET /tokens":         apiv1.Tokens{Tokens: []apiv1.Token{{ID: "t-1", Role: "agent"}}},
		"GET /connections":    apiv1.Connections{Connections: []apiv1.Connection{{Name: "own"}}},
		"GET /packages":       apiv1.Packages{Offers: []apiv1.PackageOffer{{Name: "next"}}},
	})
	for line, want := range map[string][]string{
		"agents get 0190c1d2":          {uidA + "\tweb-1", uidB + "\tweb-2"},
		"agents get web":               {"web-1", "web-2"},
		"config get e":                 {"edge/gw"},
		"rollout start edge/gw@":       {"edge/gw@2", "edge/gw@1"},
		"rollout status r":             {"r-1\tgw@3 running"},
		"token revoke t":               {"t-1\tagent"},
		"connections delete o":         {"own"},
		"packages withdraw n":          {"next"},
		"plan --name o":                {"other"},
		"agents list --state un":       {"disconnected", "config_failed", "unhealthy", "pending", "drifted", "healthy"},
		"token create --role a":        {"agent", "viewer", "operator", "admin"},
		"rollout status r-1 r":         nil,
		"rollout status --output jso":  {"table", "json", "yaml"},
		"config diff edge/gw@1 edge/g": {"edge/gw"},
	} {
		words := strings.Fields(line)
		code, stdout, _ := collie(t.Context(), append([]string{"__complete", words[0], "--server", server.url}, words[1:]...)...)
		require.Equal(t, exitDone, code)
		require.Equal(t, append(want, ":4"), strings.Split(strings.TrimSpace(stdout), "\n"), line)
	}
	_, stdout, _ := collie(t.Context(), "__complete", "agents", "get", "x")
	require.Equal(t, ":4\n", stdout, "silent without a server")
}

func TestAges(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for d, want := range map[time.Duration]string{
		-time.Minute: "0s", 59 * time.Second: "59s", 3 * time.Minute: "3m", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		require.Equal(t, want, age(now.Add(-d), now))
	}
	require.Equal(t, "-", age(time.Time{}, now))
	require.Equal(t, "never", ago(time.Time{}, now))
}

func TestColoursKeepColumnsAligned(t *testing.T) {
	t.Parallel()
	now := time.Now()
	plain, coloured := agentsTable(exampleAgents(), false, now), agentsTable(exampleAgents(), true, now)
	require.Contains(t, coloured, "\x1b[32mhealthy\x1b[0m")
	stripped := coloured
	for _, colour := range []string{red, green, yellow, cyan, faint, ordered} {
		stripped = strings.ReplaceAll(stripped, "\x1b["+colour+"m", "")
	}
	require.Equal(t, plain, strings.ReplaceAll(stripped, "\x1b[0m", ""))
}

func TestRolesAreShownWhereThereAreAny(t *testing.T) {
	t.Parallel()
	agents := exampleAgents()
	require.NotContains(t, agentsTable(agents, false, time.Now()), "ROLE")
	agents[0].NonIdentifyingAttributes = map[string]string{attributeRole: "gateway"}
	table := strings.Split(agentsTable(agents, false, time.Now()), "\n")
	require.Regexp(t, `^NAME +ROLE +UID`, table[0])
	require.Contains(t, table[1], " gateway ")
	require.Regexp(t, `^\S+ +- +\S{36}`, table[2])
}
