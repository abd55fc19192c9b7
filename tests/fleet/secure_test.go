package fleet

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
)

// token makes one through the command line.
func (h *herd) token(role string, more ...string) apiv1.Token {
	h.t.Helper()
	code, printed := h.collie(append([]string{"token", "create", "--role", role, "-o", "json"}, more...)...)
	require.Equal(h.t, 0, code, printed)
	var made apiv1.Token
	require.NoError(h.t, json.Unmarshal([]byte(printed[strings.Index(printed, "{"):strings.LastIndex(printed, "}")+1]), &made))
	return made
}

// own are the ids of an agent's own credentials.
func (h *herd) own(uid string) (ids []string) {
	h.t.Helper()
	var all apiv1.Tokens
	h.server.Must(http.MethodGet, "/tokens", nil, &all)
	for _, token := range all.Tokens {
		if token.Agent == uid {
			ids = append(ids, token.ID)
		}
	}
	return ids
}

// An agent comes with a token that is good for one enrolment, gets a credential and a certificate of its own, and goes on without the
// token; the credential is rotated while it is connected.
func TestEnrolment(t *testing.T) {
	t.Parallel()
	h := emptyHerd(t, harness.ServerOptions{Secure: true})
	enrolment := h.token("agent", "--uses", "1", "--expires", "1h")
	h.start("prod-1", map[string]string{"TOKEN": enrolment.Secret})
	applied := func(a apiv1.Agent) bool { return a.Connected && a.ConnectionSettings.Status == "APPLIED" }
	harness.Await(t, limit, "the agent is there", func() (bool, any) { return h.server.Agents("selector", "host.name=prod-1").Total == 1, nil })
	uid := h.agent("prod-1").InstanceUID
	h.server.AwaitAgent(uid, limit, "it uses a credential of its own", applied)
	require.Len(t, h.own(uid), 1)

	code, printed := h.collie("token", "revoke", enrolment.ID)
	require.Equal(t, 0, code, printed)
	h.collectors["prod-1"].Stop()
	h.server.AwaitAgent(uid, limit, "away", func(a apiv1.Agent) bool { return !a.Connected })
	h.collectors["prod-1"].Start()
	h.server.AwaitAgent(uid, limit, "back without the token", healthy)

	first := h.own(uid)
	code, printed = h.collie("agents", "rotate", "prod-1")
	require.Equal(t, 0, code, printed)
	harness.Await(t, limit, "another credential alone", func() (bool, any) {
		now := h.own(uid)
		return len(now) == 1 && now[0] != first[0], now
	})
	h.server.AwaitAgent(uid, limit, "there with it", func(a apiv1.Agent) bool { return applied(a) && healthy(a) })

	log := h.server.Log() + h.collectors["prod-1"].Log()
	database, err := os.ReadFile(filepath.Join(h.server.Dir(), "collie.db"))
	require.NoError(t, err)
	for _, secret := range []string{enrolment.Secret, h.server.AdminToken()} {
		require.NotContains(t, log, secret)
		require.NotContains(t, string(database), secret)
	}
}

// A forgotten agent's credential is refused from then on; it comes with the token that it is configured with, and is given another one.
func TestForgottenAgentComesBack(t *testing.T) {
	t.Parallel()
	h := emptyHerd(t, harness.ServerOptions{Secure: true})
	h.start("prod-1", map[string]string{"TOKEN": h.token("agent").Secret})
	applied := func() (bool, any) {
		page := h.server.Agents("selector", "host.name=prod-1")
		return page.Total == 1 && page.Agents[0].State == "healthy" && page.Agents[0].ConnectionSettings.Status == "APPLIED", page
	}
	harness.Await(t, limit, "a credential of its own", applied)
	uid := h.agent("prod-1").InstanceUID
	first := h.own(uid)
	require.Len(t, first, 1)
	h.collectors["prod-1"].Stop()
	h.server.AwaitAgent(uid, limit, "away", func(a apiv1.Agent) bool { return !a.Connected })
	code, printed := h.collie("agents", "forget", uid)
	require.Equal(t, 0, code, printed)
	require.Empty(t, h.own(uid))
	h.collectors["prod-1"].Start()
	harness.Await(t, limit, "another credential", applied)
	require.Len(t, h.own(uid), 1)
	require.NotEqual(t, first, h.own(uid))
}

// A certificate is asked for, signed, and good without any token.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	h := emptyHerd(t, harness.ServerOptions{Secure: true, Config: "certificates: true\ncredentials: false\n"})
	enrolment := h.token("agent")
	h.start("prod-1", map[string]string{"TOKEN": enrolment.Secret, "REQUEST_CERTIFICATE": "true"})
	harness.Await(t, limit, "the agent is there", func() (bool, any) { return h.server.Agents("selector", "host.name=prod-1").Total == 1, nil })
	uid := h.agent("prod-1").InstanceUID
	h.server.AwaitAgent(uid, limit, "it uses its certificate", func(a apiv1.Agent) bool {
		return a.Connected && a.ConnectionSettings.Status == "APPLIED"
	})
	require.Contains(t, strings.Join(h.timeline("prod-1"), "\n"), "certificate_issued")
	code, printed := h.collie("token", "revoke", enrolment.ID)
	require.Equal(t, 0, code, printed)
	h.collectors["prod-1"].Stop()
	h.collectors["prod-1"].Start()
	h.server.AwaitAgent(uid, limit, "back with the certificate alone", healthy)
}

// Whoever has no token, or one for something else, is told so, and changes nothing.
func TestRoles(t *testing.T) {
	t.Parallel()
	h := emptyHerd(t, harness.ServerOptions{Secure: true})
	viewer, agent := h.token("viewer"), h.token("agent")
	file := h.body(addAttribute)
	for name, secret := range map[string]string{"viewer": viewer.Secret, "agent": agent.Secret, "nobody": "collie_admin_" + strings.Repeat("x", 43)} {
		code, printed := h.collie("--token", secret, "config", "apply", "-f", file, "--name", "x", "--selector", "")
		if code == 64 { // flags stand behind the command
			code, printed = h.collie("config", "apply", "-f", file, "--name", "x", "--selector", "", "--token", secret)
		}
		require.Equal(t, 1, code, name+": "+printed)
		require.NotContains(t, printed, secret)
	}
	code, printed := h.collie("agents", "list", "--token", viewer.Secret)
	require.Equal(t, 0, code, printed)
	h.start("prod-1", map[string]string{"TOKEN": viewer.Secret}) // a viewer is no agent
	code, printed = h.collie("config", "list", "-o", "json")
	require.Equal(t, 0, code, printed)
	require.Contains(t, printed, `"configurations": []`)
	require.Zero(t, h.server.Agents().Total)
}

// A port that everybody can reach wants TLS and tokens, unless somebody insists.
func TestRefusesToListenToEverybody(t *testing.T) {
	t.Parallel()
	h := &herd{t: t, server: harness.StartServer(t, harness.ServerOptions{})}
	for _, args := range [][]string{
		{"--listen", "0.0.0.0:0"}, {"--opamp-listen", ":0"}, {"--dev", "--opamp-listen", "[::]:0"}, {"--dev", "--listen", "192.0.2.1:1"},
	} {
		code, printed := h.collie(append([]string{"server", "--data-dir", t.TempDir()}, args...)...)
		require.Equal(t, 64, code, printed)
		require.Contains(t, printed, "is not loopback")
	}
	code, printed := h.collie("server", "--dev", "--data-dir", h.server.Dir(), "--listen", "127.0.0.1:0", "--opamp-listen", "127.0.0.1:0")
	require.Equal(t, 1, code, "two servers in one folder: %s", printed)
	require.Contains(t, printed, "in use by another collie server")
}
