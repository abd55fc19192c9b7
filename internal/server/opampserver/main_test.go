package opampserver

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long a test waits for what must come.
const limit = 10 * time.Second

const allAgent = uint64(0xffff)

type departure struct {
	uid    uuid.UUID
	reason Reason
}

// fakeFleet notes what it is told.
type fakeFleet struct {
	mu      sync.Mutex // guards all below
	reports []*Report
	gone    []departure
	dropped []error
	auth    func(*http.Request) error
	admit   func(uuid.UUID) error
	reply   func(*Report) Reply
}

func (f *fakeFleet) Authenticate(r *http.Request) (Principal, error) {
	f.mu.Lock()
	auth := f.auth
	f.mu.Unlock()
	if auth != nil {
		return Principal{}, auth(r)
	}
	return Principal{Name: "test"}, nil
}

func (f *fakeFleet) Admit(_ Principal, uid uuid.UUID) error {
	f.mu.Lock()
	admit := f.admit
	f.mu.Unlock()
	if admit != nil {
		return admit(uid)
	}
	return nil
}

func (f *fakeFleet) Report(_ context.Context, r *Report) Reply {
	f.mu.Lock()
	f.reports = append(f.reports, r)
	reply := f.reply
	f.mu.Unlock()
	if reply != nil {
		return reply(r)
	}
	return Reply{}
}

func (f *fakeFleet) Gone(uid uuid.UUID, reason Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = append(f.gone, departure{uid, reason})
}

func (f *fakeFleet) Dropped(_ uuid.UUID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped = append(f.dropped, err)
}

func (f *fakeFleet) last() *Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return &Report{}
	}
	return f.reports[len(f.reports)-1]
}

// some says whether any report was such.
func (f *fakeFleet) some(such func(*Report) bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.reports, such)
}

func (f *fakeFleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeFleet) departures() []departure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.gone)
}

func (f *fakeFleet) drops() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.dropped)
}

// rig is a server on loopback.
type rig struct {
	*testing.T
	*Server
	fleet *fakeFleet
	http  *httptest.Server
}

func newRig(t *testing.T, opts Options) *rig {
	t.Helper()
	fleet := &fakeFleet{}
	s := New(fleet, slog.New(slog.DiscardHandler), opts)
	g := &rig{T: t, Server: s, fleet: fleet, http: httptest.NewServer(s)}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx)
		g.http.Close()
		g.http.Client().CloseIdleConnections()
	})
	return g
}

func (g *rig) awaitGone(uid uuid.UUID, reason Reason) {
	g.Helper()
	require.Eventually(g, func() bool { return slices.Contains(g.fleet.departures(), departure{uid, reason}) }, limit, time.Millisecond,
		"gone: %v", func() any { return g.fleet.departures() })
}

// peer is a fake agent on either transport.
type peer interface {
	// say sends a message and returns its answer.
	say(m *protobufs.AgentToServer) *protobufs.ServerToAgent
	// next is what was pushed: at once over WebSocket, with the answer to m over HTTP.
	next(m *protobufs.AgentToServer) *protobufs.ServerToAgent
}

type wsPeer struct {
	*testing.T
	ws *websocket.Conn
}

func (g *rig) dial() *wsPeer {
	g.Helper()
	ws, resp, err := websocket.Dial(context.Background(), g.http.URL+Path, &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	require.NoError(g, err)
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	ws.SetReadLimit(-1)
	g.Cleanup(func() { _ = ws.CloseNow() })
	return &wsPeer{g.T, ws}
}

func (p *wsPeer) raw(frame []byte) {
	p.Helper()
	require.NoError(p, p.ws.Write(context.Background(), websocket.MessageBinary, frame))
}

func (p *wsPeer) read() *protobufs.ServerToAgent {
	p.Helper()
	m, err := p.tryRead(limit)
	require.NoError(p, err)
	return m
}

func (p *wsPeer) tryRead(limit time.Duration) (*protobufs.ServerToAgent, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	kind, frame, err := p.ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	require.Equal(p, websocket.MessageBinary, kind)
	require.Zero(p, frame[0])
	var m protobufs.ServerToAgent
	require.NoError(p, proto.Unmarshal(frame[1:], &m))
	return &m, nil
}

func (p *wsPeer) send(m *protobufs.AgentToServer) { p.Helper(); p.raw(frameOf(p.T, m)) }

func (p *wsPeer) say(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	p.Helper()
	p.send(m)
	return p.read()
}

func (p *wsPeer) next(*protobufs.AgentToServer) *protobufs.ServerToAgent { p.Helper(); return p.read() }

func (p *wsPeer) awaitClose(code websocket.StatusCode) {
	p.Helper()
	for {
		if _, err := p.tryRead(limit); err != nil {
			require.Equal(p, code, websocket.CloseStatus(err), "%v", err)
			return
		}
	}
}

func frameOf(t testing.TB, m *protobufs.AgentToServer) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{}.MarshalAppend([]byte{0}, m)
	require.NoError(t, err)
	return data
}

type httpPeer struct{ *rig }

func (p httpPeer) post(body []byte, header ...string) (*http.Response, []byte) {
	p.Helper()
	req, err := http.NewRequest(http.MethodPost, p.http.URL+Path, bytes.NewReader(body))
	require.NoError(p, err)
	req.Header.Set("Content-Type", "application/x-protobuf")
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := p.http.Client().Do(req)
	require.NoError(p, err)
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	require.NoError(p, err)
	return resp, data
}

func (p httpPeer) say(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	p.Helper()
	resp, data := p.post(frameOf(p.T, m)[1:])
	require.Equal(p, http.StatusOK, resp.StatusCode, "%s", data)
	return answerOf(p.T, data)
}

func (p httpPeer) next(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	p.Helper()
	return p.say(m)
}

func answerOf(t *testing.T, data []byte) *protobufs.ServerToAgent {
	t.Helper()
	var m protobufs.ServerToAgent
	require.NoError(t, proto.Unmarshal(data, &m))
	return &m
}

// full is the first message of an agent, beat a later one.
func full(uid uuid.UUID, seq uint64) *protobufs.AgentToServer {
	return &protobufs.AgentToServer{
		InstanceUid: uid[:], SequenceNum: seq, Capabilities: allAgent,
		AgentDescription:   &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{{Key: "service.name", Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: "collector"}}}}},
		Health:             &protobufs.ComponentHealth{Healthy: true, Status: "ok"},
		RemoteConfigStatus: &protobufs.RemoteConfigStatus{},
		EffectiveConfig:    &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte("a: b")}}}},
	}
}

func beat(uid uuid.UUID, seq uint64) *protobufs.AgentToServer {
	return &protobufs.AgentToServer{InstanceUid: uid[:], SequenceNum: seq, Capabilities: allAgent}
}

func with(m *protobufs.AgentToServer, change func(*protobufs.AgentToServer)) *protobufs.AgentToServer {
	change(m)
	return m
}
