package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// The extension of the built program connects to an OpAMP server, and says goodbye when the Collector ends.
func TestOpAMPConnects(t *testing.T) {
	t.Parallel()
	messages := make(chan *protobufs.AgentToServer, 64)
	opamp := server.New(nil)
	handler, withConn, err := opamp.Attach(server.Settings{Callbacks: types.Callbacks{
		OnConnecting: func(*http.Request) types.ConnectionResponse {
			return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
				OnMessage: func(_ context.Context, _ types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
					messages <- m
					return &protobufs.ServerToAgent{InstanceUid: m.InstanceUid}
				},
			}}
		},
	}})
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	s.Config.ConnContext = withConn
	s.Start()
	t.Cleanup(s.Close)

	overlay := filepath.Join(t.TempDir(), "opamp.yaml")
	require.NoError(t, os.WriteFile(overlay, []byte(`
extensions: {opamp: {server: {ws: {endpoint: "`+strings.Replace(s.URL, "http://", "ws://", 1)+`/v1/opamp"}}}}
service: {extensions: [health_check, opamp]}
`), 0o600))
	c := harness.Start(t, harness.Options{Configs: []string{"quickstart.yaml", overlay}})
	next := func(what string) *protobufs.AgentToServer {
		t.Helper()
		select {
		case m := <-messages:
			return m
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: no message within 20 s", what)
			return nil
		}
	}
	require.True(t, next("report").Health.Healthy)
	c.Stop()
	for next("goodbye").AgentDisconnect == nil {
	}
}
