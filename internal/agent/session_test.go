package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// fakeServer is an OpAMP server over both transports. It keeps every message, and answers each with answer, or with an
// empty message of the same instance when that is nil.
type fakeServer struct {
	url    string
	answer func(n int, m *protobufs.AgentToServer) []byte // n counts from 0; a body without the WebSocket's header

	// onSocket replaces what happens after message n over WebSocket; true ends the connection's loop.
	onSocket func(conn *websocket.Conn, n int, m *protobufs.AgentToServer) bool
	// admit answers a request itself, and returns false, to keep the agent out.
	admit func(w http.ResponseWriter, r *http.Request) bool

	mu     sync.Mutex // guards all below
	got    []*protobufs.AgentToServer
	conns  int
	closes []websocket.StatusCode
	change chan struct{} // closed and replaced when something was added
}

func serve(t *testing.T, f *fakeServer) *fakeServer {
	t.Helper()
	f.change = make(chan struct{})
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.admit != nil && !f.admit(w, r) {
		return
	}
	if r.Header.Get("Content-Type") == protobufType {
		body, _ := io.ReadAll(r.Body)
		n, m := f.keep(body)
		_, _ = w.Write(f.reply(n, m))
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	f.update(func() { f.conns++ })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			f.update(func() { f.closes = append(f.closes, websocket.CloseStatus(err)) })
			return
		}
		n, m := f.keep(data[1:])
		if f.onSocket != nil && f.onSocket(conn, n, m) {
			return
		}
		_ = conn.Write(ctx, websocket.MessageBinary, append([]byte{0}, f.reply(n, m)...))
	}
}

func (f *fakeServer) keep(body []byte) (int, *protobufs.AgentToServer) {
	m := &protobufs.AgentToServer{}
	if err := proto.Unmarshal(body, m); err != nil {
		panic(err)
	}
	var n int
	f.update(func() { n = len(f.got); f.got = append(f.got, m) })
	return n, m
}

func (f *fakeServer) reply(n int, m *protobufs.AgentToServer) []byte {
	if f.answer != nil {
		return f.answer(n, m)
	}
	return encoded(&protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: uint64(takesConfig)})
}

func encoded(m *protobufs.ServerToAgent) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

func (f *fakeServer) update(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.change)
	f.change = make(chan struct{})
}

// messages waits for n messages and returns all that there are.
func (f *fakeServer) messages(t *testing.T, n int) []*protobufs.AgentToServer {
	t.Helper()
	f.await(t, func() bool { return len(f.got) >= n })
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*protobufs.AgentToServer{}, f.got...)
}

// await waits until the condition, which is called with mu held, is true.
func (f *fakeServer) await(t *testing.T, condition func() bool) {
	t.Helper()
	limit := time.After(patience)
	for {
		f.mu.Lock()
		done, change := condition(), f.change
		state := fmt.Sprintf("messages %v, connections %d, closes %v", f.got, f.conns, f.closes)
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-change:
		case <-limit:
			require.FailNow(t, "the server waits in vain", state)
		}
	}
}

// settings of an agent that uses the server; its client is the agent's own.
func (f *fakeServer) settings(t *testing.T, transport Transport) Settings {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return Settings{Transport: transport, Endpoint: f.url, Client: client, Interval: time.Hour, Key: f.url}
}

// openSession has something to say in every part; it is closed when the test ends.
func openSession(t *testing.T, settings Settings) *Session {
	t.Helper()
	s, err := Open(Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}, settings)
	require.NoError(t, err)
	s.SetCapabilities(reportsAll)
	for _, set := range setters {
		set(s, "old")
	}
	t.Cleanup(func() { closeSession(t, s) })
	return s
}

func closeSession(t *testing.T, s *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Close(ctx))
}

var transports = map[string]Transport{"WebSocket": WebSocket, "HTTP": HTTP}

// TestSessionLife is the same over both transports: a full report, changes only, a goodbye, all numbered.
func TestSessionLife(t *testing.T) {
	t.Parallel()
	for name, transport := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, &fakeServer{})
			s := openSession(t, f.settings(t, transport))
			s.Begin()
			s.Begin() // twice does no harm
			require.Equal(t, everything, has(f.messages(t, 1)[0]))
			require.Eventually(t, s.Connected, patience, time.Millisecond)
			setters["health"](s, "new")
			require.Equal(t, []string{"health"}, has(f.messages(t, 2)[1]))
			require.Eventually(t, func() bool { _, received := s.Messages(); return received == 2 }, patience, time.Millisecond)
			closeSession(t, s)
			require.False(t, s.Connected())
			closeSession(t, s) // twice does no harm
			s.Begin()          // after the end does nothing

			all := f.messages(t, 3)
			require.Len(t, all, 3)
			require.NotNil(t, all[2].AgentDisconnect)
			uid := s.InstanceUID()
			for i, m := range all {
				require.EqualValues(t, i, m.SequenceNum)
				require.Equal(t, uid[:], m.InstanceUid)
				require.NotZero(t, m.Capabilities)
			}
			sent, _ := s.Messages()
			require.EqualValues(t, 3, sent)
			if transport == WebSocket {
				f.await(t, func() bool { return len(f.closes) == 1 })
				require.Equal(t, websocket.StatusNormalClosure, f.closes[0])
			}
		})
	}
}

func TestSessionCloseWithoutBegin(t *testing.T) {
	t.Parallel()
	f := serve(t, &fakeServer{})
	s := openSession(t, f.settings(t, WebSocket))
	closeSession(t, s)
	closeSession(t, s)
	s.Begin()
	require.Empty(t, f.messages(t, 0))
}

func TestSessionCloseIsBounded(t *testing.T) {
	t.Parallel()
	f := serve(t, &fakeServer{})
	s := openSession(t, f.settings(t, HTTP))
	called, stuck := make(chan struct{}, 1), make(chan struct{})
	s.settings.Client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		select {
		case called <- struct{}{}:
		default:
		}
		<-stuck // whatever its context says
		return nil, io.ErrUnexpectedEOF
	})}
	s.Begin()
	<-called
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Close(ctx), context.Canceled)
	close(stuck)
}

// TestSessionUse: another server is connected to at once, in order; the same one is left alone.
func TestSessionUse(t *testing.T) {
	t.Parallel()
	for name, transport := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := serve(t, &fakeServer{}), serve(t, &fakeServer{})
			s := openSession(t, one.settings(t, transport))
			s.Begin()
			one.messages(t, 1)

			s.Use(zap.NewNop(), one.settings(t, transport), func() {})
			setters["health"](s, "same server")
			require.Equal(t, []string{"health"}, has(one.messages(t, 2)[1]))

			s.Use(zap.NewNop(), two.settings(t, transport), func() {})
			require.Equal(t, everything, has(two.messages(t, 1)[0]))
			all := one.messages(t, 3)
			require.Len(t, all, 3)
			require.NotNil(t, all[2].AgentDisconnect)
		})
	}
}

// TestSessionRequestsUID: an identity that cannot be stored is temporary, and the server's is taken.
func TestSessionRequestsUID(t *testing.T) {
	t.Parallel()
	f := serve(t, &fakeServer{answer: func(_ int, m *protobufs.AgentToServer) []byte {
		reply := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid}
		if m.Flags&uint64(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid) != 0 {
			reply.AgentIdentification = &protobufs.AgentIdentification{NewInstanceUid: uidB[:]}
		}
		return encoded(reply)
	}})
	s := openSession(t, f.settings(t, WebSocket))
	s.identity.directory, s.identity.temporary = "/dev/null/below", true
	s.Begin()
	all := f.messages(t, 2)
	require.NotZero(t, all[0].Flags)
	require.Zero(t, all[1].Flags)
	require.Equal(t, uidB[:], all[1].InstanceUid)
	require.Equal(t, everything, has(all[1]), "the server knows nothing of the new one")
	require.Equal(t, uidB, s.InstanceUID())
}

func TestSessionConcurrentUse(t *testing.T) {
	t.Parallel()
	for name, transport := range transports {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, &fakeServer{})
			s := openSession(t, f.settings(t, transport))
			other := f.settings(t, transport)
			var all sync.WaitGroup
			for name, set := range setters {
				all.Go(func() {
					for i := range 50 {
						set(s, fmt.Sprint(name, i))
					}
				})
			}
			all.Go(s.Begin)
			all.Go(s.Begin)
			all.Go(func() {
				for i := range 5 {
					other.Key = fmt.Sprint(i)
					s.Use(zap.NewNop(), other, func() {})
				}
			})
			all.Go(func() {
				for range 50 {
					h, err := s.Custom.Register("org.example")
					if err != nil {
						panic(err)
					}
					_, _ = h.SendMessage("t", nil)
					h.Unregister()
					_, _, _ = s.InstanceUID(), s.Connected(), s.Custom.Dropped()
				}
			})
			all.Go(func() {
				for i := range 20 {
					s.SetCapabilities(protobufs.AgentCapabilities(1 << (i % 12)))
				}
			})
			all.Wait()
			f.messages(t, 1)
			all.Go(func() { _ = s.Close(context.Background()) })
			all.Go(func() { _ = s.Close(context.Background()) })
			all.Wait()
		})
	}
}

// fakeLink is a connection that the test holds in its hands.
type fakeLink struct {
	out  chan *protobufs.AgentToServer
	in   chan *protobufs.ServerToAgent
	gone chan struct{}
}

func newFakeLink() *fakeLink {
	return &fakeLink{make(chan *protobufs.AgentToServer, 16), make(chan *protobufs.ServerToAgent), make(chan struct{})}
}

func (l *fakeLink) exchange(_ context.Context, data []byte) error {
	m := &protobufs.AgentToServer{}
	if err := proto.Unmarshal(data, m); err != nil {
		return err
	}
	l.out <- m
	return nil
}

func (l *fakeLink) incoming() <-chan *protobufs.ServerToAgent { return l.in }
func (l *fakeLink) lost() <-chan struct{}                     { return l.gone }
func (l *fakeLink) reason() error                             { return io.EOF }
func (l *fakeLink) close(context.Context)                     {}

// TestOpenWithoutStorage: a storage that is no folder is no reason to fail.
func TestOpenWithoutStorage(t *testing.T) {
	t.Parallel()
	s, err := Open(Options{StorageDirectory: "/dev/null/below", InstanceUID: uidA, Logger: zap.NewNop()}, Settings{})
	require.NoError(t, err)
	require.Equal(t, uidA, s.InstanceUID())
	closeSession(t, s)
}

// roundTrip is an HTTP transport without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: h, Body: io.NopCloser(strings.NewReader(body))}
}
