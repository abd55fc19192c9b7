package opampextension

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeServer is opamp-go's own server behind a test listener; it hands every message to the test.
func fakeServer(t *testing.T) (address string, messages <-chan *protobufs.AgentToServer) {
	t.Helper()
	received := make(chan *protobufs.AgentToServer, 64)
	onMessage := func(_ context.Context, _ types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
		received <- m
		return &protobufs.ServerToAgent{InstanceUid: m.InstanceUid}
	}
	accept := types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{OnMessage: onMessage}}
	opamp := server.New(nil)
	handler, withConn, err := opamp.Attach(server.Settings{Callbacks: types.Callbacks{
		OnConnecting: func(*http.Request) types.ConnectionResponse { return accept },
	}})
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	s.Config.ConnContext = withConn
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), received
}

func newTestAgent(t *testing.T, conf map[string]any) *agent {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	require.NoError(t, confmap.NewFromStringMap(conf).Unmarshal(cfg))
	require.NoError(t, cfg.Validate())
	a, err := newAgent(extensiontest.NewNopSettings(componentType), cfg)
	require.NoError(t, err)
	return a
}

func wsConfig(endpoint string) map[string]any {
	return map[string]any{"server": map[string]any{"ws": map[string]any{"endpoint": endpoint}}}
}

func httpConfig(endpoint string) map[string]any {
	return map[string]any{"server": map[string]any{"http": map[string]any{"endpoint": endpoint, "polling_interval": "50ms"}}}
}

func TestAgentReportsItself(t *testing.T) {
	for name, conf := range map[string]func(string) map[string]any{
		"ws":   func(addr string) map[string]any { return wsConfig("ws://" + addr + "/v1/opamp") },
		"http": func(addr string) map[string]any { return httpConfig("http://" + addr + "/v1/opamp") },
	} {
		t.Run(name, func(t *testing.T) {
			addr, messages := fakeServer(t)
			uid := uuid.NewString()
			c := conf(addr)
			c["instance_uid"] = uid
			a := newTestAgent(t, c)
			require.NoError(t, a.Start(t.Context(), componenttest.NewNopHost()))

			var first *protobufs.AgentToServer
			select {
			case first = <-messages:
			case <-time.After(10 * time.Second):
				t.Fatal("no message from the agent within 10 s")
			}
			require.NoError(t, a.Shutdown(t.Context()))
			require.Equal(t, uid, uuid.UUID(first.InstanceUid).String())
			require.True(t, first.Health.Healthy)
			ids := map[string]string{}
			for _, kv := range first.AgentDescription.IdentifyingAttributes {
				ids[kv.Key] = kv.Value.GetStringValue()
			}
			require.Equal(t, uid, ids["service.instance.id"])
			require.Contains(t, ids, "service.name")
			require.Contains(t, ids, "service.version")
		})
	}
}

func TestServerAwayDoesNotStopTheCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	a := newTestAgent(t, wsConfig("ws://"+addr+"/v1/opamp"))
	require.NoError(t, a.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, a.Shutdown(t.Context()))
}

func TestShutdownWithoutStartAndTwice(t *testing.T) {
	addr, _ := fakeServer(t)
	a := newTestAgent(t, wsConfig("ws://"+addr+"/v1/opamp"))
	require.NoError(t, a.Shutdown(t.Context()))
	require.NoError(t, a.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, a.Shutdown(t.Context()))
	require.NoError(t, a.Shutdown(t.Context()))
}

func TestStartRefusesUnreadableCA(t *testing.T) {
	c := wsConfig("wss://127.0.0.1:4320/v1/opamp")
	c["server"].(map[string]any)["ws"].(map[string]any)["tls"] = map[string]any{"ca_file": "/does/not/exist.pem"}
	a := newTestAgent(t, c)
	require.ErrorContains(t, a.Start(t.Context(), componenttest.NewNopHost()), "server::tls")
	require.NoError(t, a.Shutdown(t.Context()))
}

func TestValidate(t *testing.T) {
	ws := map[string]any{"endpoint": "ws://127.0.0.1:4320/v1/opamp"}
	http := map[string]any{"endpoint": "http://127.0.0.1:4320/v1/opamp"}
	for name, tc := range map[string]struct {
		conf map[string]any
		want []string
	}{
		"no server":      {map[string]any{}, []string{"server: set ws::endpoint or http::endpoint"}},
		"both":           {map[string]any{"server": map[string]any{"ws": ws, "http": http}}, []string{"not both"}},
		"scheme":         {wsConfig("http://127.0.0.1:4320"), []string{"server::ws::endpoint", "want ws://"}},
		"no host":        {wsConfig("ws:///v1/opamp"), []string{"server::ws::endpoint"}},
		"polling":        {map[string]any{"server": map[string]any{"http": map[string]any{"endpoint": "http://h:1", "polling_interval": "-1s"}}}, []string{"polling_interval: must be positive"}},
		"two at once":    {map[string]any{"instance_uid": "x", "server": map[string]any{}}, []string{"instance_uid", "server: set"}},
		"fine over ws":   {map[string]any{"server": map[string]any{"ws": ws}}, nil},
		"fine over http": {map[string]any{"server": map[string]any{"http": http}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			require.NoError(t, confmap.NewFromStringMap(tc.conf).Unmarshal(cfg))
			err := cfg.Validate()
			if tc.want == nil {
				require.NoError(t, err)
			}
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}
