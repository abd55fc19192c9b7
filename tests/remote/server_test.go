package remote

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// word is what the agent has said about a configuration.
type word struct {
	status, hash, message string
	at                    time.Time
}

// fleet is an OpAMP server with one agent.
type fleet struct {
	t       testing.TB
	address string

	mu          sync.Mutex // guards all below
	conn        types.Connection
	uid         []byte
	messages    []*protobufs.AgentToServer
	words       []word
	effective   string
	health      *protobufs.ComponentHealth
	connections int
	offer       *protobufs.AgentRemoteConfig // repeated on each connection, as servers do
}

func startFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{t: t, address: fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1"))}
	f.listen()
	return f
}

// listen serves until the test ends, or stop is called.
func (f *fleet) listen() (stop func()) {
	f.t.Helper()
	s := server.New(nil)
	require.NoError(f.t, s.Start(server.StartSettings{ListenEndpoint: f.address, Settings: server.Settings{Callbacks: types.Callbacks{
		OnConnecting: func(*http.Request) types.ConnectionResponse {
			return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{OnMessage: f.onMessage, OnConnected: f.onConnected}}
		},
	}}}))
	var once sync.Once
	stop = func() {
		once.Do(func() {
			f.mu.Lock()
			conn := f.conn
			f.conn = nil
			f.mu.Unlock()
			if conn != nil {
				_ = conn.Disconnect()
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = s.Stop(ctx)
		})
	}
	f.t.Cleanup(stop)
	return stop
}

func (f *fleet) onConnected(_ context.Context, conn types.Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn = conn
	f.connections++
}

func (f *fleet) onMessage(_ context.Context, conn types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conn, f.uid = conn, m.InstanceUid
	f.messages = append(f.messages, m)
	if s := m.RemoteConfigStatus; s != nil {
		f.words = append(f.words, word{s.Status.String()[len("RemoteConfigStatuses_"):], string(s.LastRemoteConfigHash), s.ErrorMessage, time.Now()})
	}
	if c := m.EffectiveConfig.GetConfigMap().GetConfigMap()[""]; c != nil {
		f.effective = string(c.Body)
	}
	if m.Health != nil {
		f.health = m.Health
	}
	answer := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus |
		protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig | protobufs.ServerCapabilities_ServerCapabilities_OffersRemoteConfig)}
	if m.AgentDescription != nil {
		answer.RemoteConfig = f.offer
	}
	return answer
}

// push offers one configuration under the empty name; the hash is its name in the tests.
func (f *fleet) push(hash, body string) time.Time {
	f.t.Helper()
	return f.pushFiles(hash, map[string]string{"": body})
}

func (f *fleet) pushFiles(hash string, files map[string]string) time.Time {
	f.t.Helper()
	offer := &protobufs.AgentRemoteConfig{ConfigHash: []byte(hash), Config: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{}}}
	for name, body := range files {
		offer.Config.ConfigMap[name] = &protobufs.AgentConfigFile{Body: []byte(body), ContentType: "text/yaml"}
	}
	f.send(&protobufs.ServerToAgent{RemoteConfig: offer})
	return time.Now()
}

func (f *fleet) send(m *protobufs.ServerToAgent) {
	f.t.Helper()
	var conn types.Connection
	harness.Await(f.t, 30*time.Second, "a connected agent", func() (bool, any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		conn, m.InstanceUid = f.conn, f.uid
		return conn != nil && f.uid != nil, "not connected"
	})
	require.NoError(f.t, conn.Send(context.Background(), m))
}

// always offers a configuration on each connection from now on.
func (f *fleet) always(hash, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offer = &protobufs.AgentRemoteConfig{ConfigHash: []byte(hash), Config: &protobufs.AgentConfigMap{
		ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte(body)}},
	}}
}

// said are all words of the agent so far.
func (f *fleet) said() []word {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.words)
}

// await waits until the agent has said this about a configuration, after number `from` of its words.
func (f *fleet) await(from int, hash, status string) word {
	f.t.Helper()
	var found word
	harness.Await(f.t, 60*time.Second, status+" of "+hash, func() (bool, any) {
		words := f.said()
		for _, w := range words[min(from, len(words)):] {
			if w.hash == hash && w.status == status {
				found = w
				return true, nil
			}
		}
		return false, fmt.Sprintf("the agent said %v", words)
	})
	return found
}

// effectiveConfig is what the agent has reported last.
func (f *fleet) effectiveConfig() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effective
}
