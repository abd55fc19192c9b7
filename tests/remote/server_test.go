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
	closed      int
	tokens      []string                     // the header Authorization of each connection
	offer       *protobufs.AgentRemoteConfig // repeated on each connection, as servers do
	nagging     bool                         // repeated in each answer, as no server should
	stop        func()
}

func startFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{t: t}
	var err error
	for range 3 { // another test process may take a port between its choice and its use
		f.address = fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1"))
		if err = f.serve(); err == nil {
			return f
		}
	}
	require.NoError(t, err)
	return nil
}

// back is the server again, at the same address.
func (f *fleet) back() {
	f.t.Helper()
	require.NoError(f.t, f.serve())
}

// serve serves until the test ends, or away is called.
func (f *fleet) serve() error {
	s, open := server.New(nil), &connections{all: map[types.Connection]struct{}{}}
	err := s.Start(server.StartSettings{ListenEndpoint: f.address, Settings: server.Settings{Callbacks: types.Callbacks{
		OnConnecting: func(r *http.Request) types.ConnectionResponse {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.tokens = append(f.tokens, r.Header.Get("Authorization"))
			return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
				OnMessage: f.onMessage, OnConnectionClose: f.onClose,
				OnConnected: func(ctx context.Context, conn types.Connection) {
					f.onConnected(ctx, conn)
					open.add(conn)
				},
			}}
		},
	}}})
	if err != nil {
		return err
	}
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			f.mu.Lock()
			f.conn = nil
			f.mu.Unlock()
			open.end()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = s.Stop(ctx)
		})
	}
	f.t.Cleanup(f.stop)
	return nil
}

// connections are those of one server, which does not close them itself when it stops.
type connections struct {
	mu    sync.Mutex // guards all below
	all   map[types.Connection]struct{}
	ended bool
}

func (c *connections) add(conn types.Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all[conn] = struct{}{}; c.ended {
		_ = conn.Disconnect()
	}
}

// end closes all that are open, and all that come to be open.
func (c *connections) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for conn := range c.all {
		_ = conn.Disconnect()
	}
}

// away ends the server; its agents are left alone until it is back.
func (f *fleet) away() { f.stop() }

// onClose forgets what a process has said when it is gone.
func (f *fleet) onClose(types.Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	if f.closed == f.connections {
		f.conn, f.effective, f.health = nil, "", nil
	}
}

// awaitGone waits until all that the agent has said has been heard, and it has hung up.
func (f *fleet) awaitGone() {
	f.t.Helper()
	harness.Await(f.t, 30*time.Second, "the end of the connection", func() (bool, any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.closed == f.connections, fmt.Sprintf("%d of %d connections closed", f.closed, f.connections)
	})
}

func (f *fleet) onConnected(context.Context, types.Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
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
	if m.AgentDescription != nil || f.nagging {
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

// nag repeats that offer in each answer from now on, or stops to.
func (f *fleet) nag(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nagging = on
}

// agent is the instance UID of the agent.
func (f *fleet) agent() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.uid)
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

// awaitAny waits until the last word of the agent is one of these statuses of a configuration.
func (f *fleet) awaitAny(hash string, statuses ...string) (last word) {
	f.t.Helper()
	harness.Await(f.t, 60*time.Second, fmt.Sprint("one of ", statuses, " of ", hash), func() (bool, any) {
		last = f.lastWord(0)
		return last.hash == hash && slices.Contains(statuses, last.status), last
	})
	return last
}

// connected is how often the agent has connected.
func (f *fleet) connected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connections
}

// presented are the credentials of all connections.
func (f *fleet) presented() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens)
}

// lastWord is what the agent has said last about any configuration, after number `from` of its words; nothing is the zero word.
func (f *fleet) lastWord(from int) (last word) {
	if words := f.said(); len(words) > from {
		last = words[len(words)-1]
	}
	return last
}

// awaitHealth waits for a report of the health that is as wanted.
func (f *fleet) awaitHealth(what string, wanted func(*protobufs.ComponentHealth) bool) {
	f.t.Helper()
	harness.Await(f.t, 30*time.Second, "health: "+what, func() (bool, any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.health != nil && wanted(f.health), fmt.Sprintf("healthy %v, last error %q", f.health.GetHealthy(), f.health.GetLastError())
	})
}

// heard are the messages of the agent so far.
func (f *fleet) heard() []*protobufs.AgentToServer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.messages)
}

// effectiveConfig is what the agent has reported last.
func (f *fleet) effectiveConfig() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.effective
}
