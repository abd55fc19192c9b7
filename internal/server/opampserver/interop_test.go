package opampserver

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	session "github.com/collie-otel/collie/internal/agent"
)

const simpleAgent = protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus | protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig | protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig | protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand

func description() *protobufs.AgentDescription { return full(uuid.Max, 0).AgentDescription }

// endpoint is the rig's URL for a transport.
func (g *rig) endpoint(t Transport) string {
	if t == WebSocket {
		return strings.Replace(g.http.URL, "http", "ws", 1) + Path
	}
	return g.http.URL + Path
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		require.FailNow(t, "nothing came")
		panic("not reached")
	}
}

// TestOurAgent drives the server with the session of our own Collector.
func TestOurAgent(t *testing.T) {
	t.Parallel()
	for _, transport := range []Transport{WebSocket, HTTP} {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			g, uid, given := newRig(t, Options{}), newUID(), newUID()
			settings := session.Settings{Transport: session.Transport(transport), Endpoint: g.endpoint(transport), Client: g.http.Client(), Interval: 20 * time.Millisecond}
			s, err := session.Open(session.Options{StorageDirectory: t.TempDir(), InstanceUID: uid, Logger: zap.NewNop()}, settings)
			require.NoError(t, err)
			s.SetDescription(description())
			s.SetHealth(&protobufs.ComponentHealth{Healthy: true})
			s.SetEffectiveConfig(incompressible(5000))
			s.SetCapabilities(simpleAgent)
			restarts := make(chan struct{}, 10)
			s.Use(zap.NewNop(), settings, func() { restarts <- struct{}{} })
			s.Begin()
			closed := false
			defer func() {
				if !closed {
					_ = s.Close(context.Background())
				}
			}()
			require.Eventually(t, func() bool { return g.fleet.last().State.EffectiveConfigHash != "" }, limit, time.Millisecond)
			require.NoError(t, g.Push(uid, &Offer{Restart: true}))
			await(t, restarts)
			require.NoError(t, g.Push(uid, &Offer{NewUID: given}))
			require.Eventually(t, func() bool { r := g.fleet.last(); return r.UID == given && !r.Incomplete }, limit, time.Millisecond)
			g.awaitGone(uid, ReasonRenamed)
			require.Zero(t, g.Metrics().Gaps)
			require.Zero(t, g.Metrics().In[KindMalformed])
			require.NoError(t, s.Close(context.Background()))
			closed = true
			g.awaitGone(given, ReasonDisconnect)
		})
	}
}

// TestNoSecretsInLogs lets everything that may carry a secret pass by the log.
func TestNoSecretsInLogs(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	fleet := &fakeFleet{auth: func(r *http.Request) error {
		if r.Header.Get("Authorization") == "" {
			return &StatusError{Code: 401, Message: "s3cret"}
		}
		return nil
	}}
	s := New(fleet, slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug})), Options{Capabilities: everything})
	for i, data := range [][]byte{[]byte("s3cret"), frameOf(t, with(full(newUID(), 0), func(m *protobufs.AgentToServer) { m.Health.LastError = "s3cret" }))[1:]} {
		from := &source{principal: Principal{Name: "p"}, remote: "r", header: "s3cret"}
		_, malformed := s.exchange(context.Background(), from, data)
		require.Equal(t, i == 0, malformed)
	}
	require.NoError(t, s.Shutdown(context.Background()))
	require.Contains(t, lines.String(), "cannot be read")
	require.NotContains(t, lines.String(), "s3cret")
}
