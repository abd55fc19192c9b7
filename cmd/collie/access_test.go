package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	uses := 3
	in := time.Now().Add(30*24*time.Hour + time.Hour)
	token := apiv1.Token{ID: "t-1", Secret: "collie_secret", Role: "agent", Uses: &uses, ExpiresAt: in}
	server := newFakeServer(t, answers{
		"POST /tokens":        token,
		"DELETE /tokens/{id}": "",
		"GET /tokens": apiv1.Tokens{Tokens: []apiv1.Token{
			{ID: "t-1", Role: "agent", Uses: &uses, ExpiresAt: in, CreatedAt: before(time.Hour), Agent: uidA},
			{ID: "t-2", Role: "admin", CreatedAt: before(50 * time.Hour)},
			{ID: "t-3", Role: "viewer", ExpiresAt: before(0)},
		}},
	})
	code, stdout, stderr := server.run(t, "token create --role agent --expires 30d --uses 3")
	require.Equal(t, exitDone, code, stderr)
	golden(t, "token", stdout)
	require.Equal(t, "collie token create: keep the secret now: it is not shown again\n", stderr)
	code, stdout, stderr = server.run(t, "token create --role admin -o yaml")
	require.Equal(t, exitDone, code)
	require.Contains(t, stdout, "secret: collie_secret\n")
	require.Empty(t, stderr)
	_, stdout, _ = server.run(t, "token list")
	golden(t, "tokens", stdout)
	code, stdout, _ = server.run(t, "token revoke t-1")
	require.Equal(t, exitDone, code)
	require.Equal(t, "t-1 is revoked\n", stdout)
	require.Equal(t, []string{
		`POST /tokens {"role":"agent","uses":3,"expires":"30d"}`, `POST /tokens {"role":"admin"}`, "GET /tokens", "DELETE /tokens/t-1",
	}, server.asked())
}

func TestConnections(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"PUT /connections/{name}":    "",
		"DELETE /connections/{name}": apiv1.Problem{Status: 404, Detail: "there is no connection n"},
		"GET /connections": apiv1.Connections{Connections: []apiv1.Connection{
			{Name: "own", Selector: "a=b", Priority: 1, UpdatedAt: before(time.Hour), ConnectionOffer: apiv1.ConnectionOffer{
				OpAMP: &apiv1.OpAMPSettings{}, OwnMetrics: &apiv1.Destination{Endpoint: "self"},
				Other: map[string]apiv1.Destination{"backend": {Endpoint: "https://otlp.example.com", Headers: map[string]string{"k": "secret"}}},
			}},
			{Name: "slow", ConnectionOffer: apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "1m"}}},
			{Name: "empty"},
		}},
	})
	offer := "selector: a=b\nown_metrics: {endpoint: self}\nother: {x: {endpoint: \"https://x\", headers: {k: v}}}\n"
	code, stdout, stderr := server.run(t, "connections apply --name own -f "+file(t, offer))
	require.Equal(t, exitDone, code, stderr)
	require.Equal(t, "connection own is offered to a=b\n", stdout)
	_, stdout, _ = server.run(t, "connections list")
	golden(t, "connections", stdout)
	code, _, stderr = server.run(t, "connections delete n")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "collie connections delete: there is no connection n\n", stderr)
	require.Equal(t, []string{
		`PUT /connections/own {"name":"own","selector":"a=b","priority":0,"own_metrics":{"endpoint":"self"},` +
			`"other":{"x":{"endpoint":"https://x","headers":{"k":"v"}}}}`,
		"GET /connections", "DELETE /connections/n",
	}, server.asked())
	for content, want := range map[string]string{
		"own_metric: {endpoint: self}": `--file: unknown field "own_metric"`,
		"name: other":                  `it is named "other" there, and "own" by --name: make them the same`,
		"selector: ' ='":               "--file: selector: ",
	} {
		code, _, stderr := server.run(t, "connections apply --name own -f "+file(t, content))
		require.Equal(t, exitFailed, code)
		require.Contains(t, stderr, want)
		require.Equal(t, 1, strings.Count(stderr, "\n"))
	}
	require.Len(t, server.asked(), 3)
}

func TestPackages(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"PUT /packages/offers/{name}":    "",
		"DELETE /packages/offers/{name}": "",
		"GET /packages": inTurn(apiv1.Packages{
			Packages: []apiv1.Package{{Name: "otelcol-collie", Version: "1.1", Platforms: []string{"linux/amd64", "linux/arm64"}}},
			Offers:   []apiv1.PackageOffer{{Name: "next", Version: "1.1", Selector: "a=b", UpdatedAt: before(time.Hour)}},
		}, apiv1.Packages{}),
	})
	_, stdout, _ := server.run(t, "packages list")
	golden(t, "packages", stdout)
	_, stdout, _ = server.run(t, "packages list")
	require.Equal(t, "no packages\n\nno offers\n", stdout)
	for line, want := range map[string]string{
		"packages offer next --version 1.1 --selector a=b": "offer next: version 1.1 to a=b\n",
		"packages offer all --version 1.2 --selector=":     "offer all: version 1.2 to all agents\n",
		"packages withdraw next":                           "offer next is withdrawn\n",
	} {
		code, stdout, stderr := server.run(t, line)
		require.Equal(t, exitDone, code, stderr)
		require.Equal(t, want, stdout)
	}
	require.Contains(t, server.asked(), `PUT /packages/offers/next {"name":"next","selector":"a=b","priority":0,"version":"1.1"}`)
}
