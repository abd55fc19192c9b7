package fleet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	// soon is how long what must come may take on a busy machine, and quiet how long nothing comes where nothing must.
	soon  = 20 * time.Second
	quiet = 300 * time.Millisecond
)

// speaker is an agent that says what it is told to. It dials with its first message.
type speaker struct {
	*testing.T
	server *harness.Server
	over   string
	uid    uuid.UUID
	seq    uint64
	// full is its full report; the capabilities in it go along with every message.
	full   *protobufs.AgentToServer
	ws     *websocket.Conn
	client *http.Client
}

func newSpeaker(t *testing.T, server *harness.Server, over string) *speaker {
	transport := &http.Transport{DisableCompression: true}
	a := &speaker{T: t, server: server, over: over, uid: uuid.Must(uuid.NewV7()), client: &http.Client{Transport: transport, Timeout: soon}}
	a.full = &protobufs.AgentToServer{
		Capabilities: basic,
		AgentDescription: &protobufs.AgentDescription{
			IdentifyingAttributes:    attributes("service.name", "speaker"),
			NonIdentifyingAttributes: attributes("speaker", a.uid.String(), "os.type", "linux", "host.arch", "amd64"),
		},
		Health:             &protobufs.ComponentHealth{Healthy: true, Status: "StatusOK"},
		RemoteConfigStatus: &protobufs.RemoteConfigStatus{},
		EffectiveConfig:    files("", "receivers: {}\n"),
	}
	t.Cleanup(func() {
		a.hangUp()
		transport.CloseIdleConnections()
	})
	return a
}

// another is a second agent for the same duty.
func (a *speaker) another() *speaker { return newSpeaker(a.T, a.server, a.over) }

// selector matches this agent alone.
func (a *speaker) selector() string { return "speaker=" + a.uid.String() }

// name is one for what only this agent is given.
func (a *speaker) name() string { return "for-" + a.uid.String() }

func attributes(pairs ...string) []*protobufs.KeyValue {
	var list []*protobufs.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, &protobufs.KeyValue{Key: pairs[i], Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: pairs[i+1]}}})
	}
	return list
}

func files(pairs ...string) *protobufs.EffectiveConfig {
	m := map[string]*protobufs.AgentConfigFile{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &protobufs.AgentConfigFile{Body: []byte(pairs[i+1])}
	}
	return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: m}}
}

// encoded is a message with what every message has, the next sequence number among it.
func (a *speaker) encoded(m *protobufs.AgentToServer) []byte {
	a.Helper()
	m = proto.CloneOf(m)
	m.InstanceUid, m.SequenceNum, m.Capabilities = a.uid[:], a.seq, a.full.Capabilities
	a.seq++
	data, err := proto.Marshal(m)
	require.NoError(a, err)
	return data
}

// say sends a message and returns what comes next: its answer, unless something was pushed before.
func (a *speaker) say(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	a.Helper()
	return a.exchange(a.encoded(m))
}

func (a *speaker) exchange(data []byte) *protobufs.ServerToAgent {
	a.Helper()
	if a.over == overHTTP {
		resp, body := a.post(data)
		require.Equal(a, http.StatusOK, resp.StatusCode, "%s", body)
		return a.decoded(body)
	}
	a.write(append([]byte{0}, data...))
	return a.read()
}

// hello is the full report, beat a heartbeat.
func (a *speaker) hello() *protobufs.ServerToAgent { a.Helper(); return a.say(a.full) }

func (a *speaker) beat() *protobufs.ServerToAgent {
	a.Helper()
	return a.say(&protobufs.AgentToServer{})
}

// post sends a body; a header of the form "Name: " takes a default away.
func (a *speaker) post(body []byte, header ...string) (*http.Response, []byte) {
	a.Helper()
	return a.request(http.MethodPost, a.server.HTTP(), body, header...)
}

func (a *speaker) request(method, url string, body []byte, header ...string) (*http.Response, []byte) {
	a.Helper()
	req, err := http.NewRequestWithContext(a.Context(), method, url, bytes.NewReader(body))
	require.NoError(a, err)
	req.Header.Set("Content-Type", "application/x-protobuf")
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		if req.Header.Del(name); value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := a.client.Do(req)
	require.NoError(a, err)
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(a, err)
	return resp, answer
}

func (a *speaker) decoded(data []byte) *protobufs.ServerToAgent {
	a.Helper()
	var m protobufs.ServerToAgent
	require.NoError(a, proto.Unmarshal(data, &m))
	return &m
}

func (a *speaker) dial(options *websocket.DialOptions) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), soon)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, a.server.WebSocket(), options) // the library closes the body
	require.NoError(a, err)
	ws.SetReadLimit(-1)
	a.ws = ws
}

// write sends a frame as it is, and dials before if it must.
func (a *speaker) write(frame []byte) {
	a.Helper()
	if a.ws == nil {
		a.dial(nil)
	}
	ctx, cancel := context.WithTimeout(a.Context(), soon)
	defer cancel()
	require.NoError(a, a.ws.Write(ctx, websocket.MessageBinary, frame))
}

func (a *speaker) read() *protobufs.ServerToAgent {
	a.Helper()
	m, err := a.tryRead(soon)
	require.NoError(a, err)
	return m
}

// tryRead waits for a message. When the time is over the connection is lost.
func (a *speaker) tryRead(limit time.Duration) (*protobufs.ServerToAgent, error) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), limit)
	defer cancel()
	kind, frame, err := a.ws.Read(ctx)
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	require.Equal(a, websocket.MessageBinary, kind)
	require.NotEmpty(a, frame)
	require.Zero(a, frame[0], "the header")
	return a.decoded(frame[1:]), nil
}

// awaitClose requires that the server ends the connection, and says why.
func (a *speaker) awaitClose(code websocket.StatusCode) {
	a.Helper()
	for {
		if _, err := a.tryRead(soon); err != nil {
			require.Equal(a, code, websocket.CloseStatus(err), "%v", err)
			return
		}
	}
}

// until waits for a message that is as it should be. Over HTTP it polls.
func (a *speaker) until(what string, good func(*protobufs.ServerToAgent) bool) *protobufs.ServerToAgent {
	a.Helper()
	var m *protobufs.ServerToAgent
	if a.over == overWebSocket {
		for m = a.read(); !good(m); m = a.read() {
		}
		return m
	}
	harness.Await(a, soon, what, func() (bool, any) {
		m = a.beat()
		return good(m), m
	})
	return m
}

// never requires that no such message comes. It is the last word on a connection.
func (a *speaker) never(what string, bad func(*protobufs.ServerToAgent) bool) {
	a.Helper()
	for deadline := time.Now().Add(quiet); time.Now().Before(deadline); {
		var m *protobufs.ServerToAgent
		if a.over == overHTTP {
			m = a.beat()
			time.Sleep(quiet / 10)
		} else {
			var err error
			if m, err = a.tryRead(time.Until(deadline)); err != nil {
				require.ErrorIs(a, err, context.DeadlineExceeded)
				a.hangUp()
				return
			}
		}
		require.False(a, bad(m), "%s: %v", what, m)
	}
}

// hangUp ends the connection without a word.
func (a *speaker) hangUp() {
	if a.ws != nil {
		_ = a.ws.CloseNow()
		a.ws = nil
	}
}

// leave says goodbye, and waits until the server believes it.
func (a *speaker) leave() {
	a.Helper()
	a.say(&protobufs.AgentToServer{AgentDisconnect: &protobufs.AgentDisconnect{}})
	a.hangUp()
	a.believed("gone", func(v apiv1.Agent) bool { return !v.Connected })
}

// believed waits until the server shows the agent as it should be.
func (a *speaker) believed(what string, good func(apiv1.Agent) bool) apiv1.Agent {
	a.Helper()
	var agent apiv1.Agent
	harness.Await(a, soon, what, func() (bool, any) {
		agent = apiv1.Agent{}
		if err := a.server.Do(http.MethodGet, "/agents/"+a.uid.String(), nil, &agent); err != nil {
			return false, err
		}
		return good(agent), agent
	})
	return agent
}

// ask sends a request to the API.
func (a *speaker) ask(method, path string, body, into any) {
	a.Helper()
	require.NoError(a, a.server.Do(method, path, body, into))
}
