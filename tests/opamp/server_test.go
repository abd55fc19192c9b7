package opamp

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/tests/harness"
)

// serverCapabilities are those of the fake server: it takes all that an agent reports.
const serverCapabilities = uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus | protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig)

// received is a message of the agent with how it came.
type received struct {
	*protobufs.AgentToServer
	at         time.Time
	connection int // number of the WebSocket connection; over HTTP 0
	header     http.Header
}

// reaction is what the server does with a message; the zero value answers as it should.
type reaction struct {
	answer *protobufs.ServerToAgent // instance_uid and capabilities are filled in where they are not set
	raw    []byte                   // instead of an answer: these bytes (a whole WebSocket message, a whole body)
	text   bool                     // raw goes out as a text frame
	drop   bool                     // no answer, and the connection is closed
	silent bool                     // no answer
	status int                      // over HTTP: this status
	header map[string]string        // over HTTP: beside the status
}

// fakeServer is an OpAMP server that a test scripts.
type fakeServer struct {
	t    *testing.T
	http *httptest.Server

	mu          sync.Mutex // guards all below
	react       func(*protobufs.AgentToServer) reaction
	refuse      func(w http.ResponseWriter) bool // answers an attempt to connect; true: it was refused
	onConnect   func(*websocket.Conn)
	pending     []reaction // to be sent at the next opportunity
	messages    []received
	attempts    []time.Time // of connections and, over HTTP, of requests
	current     *websocket.Conn
	connections int
	closeStatus websocket.StatusCode // with which the last connection was closed by the agent
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{t: t, react: func(*protobufs.AgentToServer) reaction { return reaction{} }}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1")))
	require.NoError(t, err)
	s.http = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(s.serve)}}
	s.http.Start()
	t.Cleanup(func() {
		s.mu.Lock()
		if s.current != nil {
			_ = s.current.CloseNow()
		}
		s.mu.Unlock()
		s.http.Close()
	})
	return s
}

func (s *fakeServer) address() string { return s.http.Listener.Addr().String() }

// script changes how the server behaves from now on.
func (s *fakeServer) script(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *fakeServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.attempts = append(s.attempts, time.Now())
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil && refuse(w) {
		return
	}
	if r.Method == http.MethodPost {
		s.serveHTTP(w, r)
		return
	}
	s.serveWebSocket(w, r)
}

func (s *fakeServer) serveHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var m protobufs.AgentToServer
	if err != nil || proto.Unmarshal(body, &m) != nil {
		s.t.Errorf("the agent sent a body that is no message: %v", err)
	}
	re := s.note(&m, 0, r.Header)
	for k, v := range re.header {
		w.Header().Set(k, v)
	}
	if re.drop {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	if re.status != 0 {
		w.WriteHeader(re.status)
		return
	}
	_, _ = w.Write(s.encode(&m, re, nil))
}

func (s *fakeServer) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(64 << 20)
	s.mu.Lock()
	s.connections++
	number, onConnect := s.connections, s.onConnect
	s.current = conn
	s.mu.Unlock()
	if onConnect != nil {
		onConnect(conn)
	}
	for {
		_, frame, err := conn.Read(context.Background())
		if err != nil {
			s.script(func() { s.closeStatus = websocket.CloseStatus(err) })
			return
		}
		var m protobufs.AgentToServer
		if len(frame) == 0 || frame[0] != 0 || proto.Unmarshal(frame[1:], &m) != nil {
			s.t.Errorf("the agent sent a frame that is no message: % x", frame[:min(len(frame), 32)])
			return
		}
		re := s.note(&m, number, r.Header)
		if re.drop {
			return
		}
		if !re.silent {
			s.write(conn, &m, re)
		}
	}
}

func (s *fakeServer) write(conn *websocket.Conn, m *protobufs.AgentToServer, re reaction) {
	kind := websocket.MessageBinary
	if re.text {
		kind = websocket.MessageText
	}
	_ = conn.Write(context.Background(), kind, s.encode(m, re, []byte{0}))
}

func (s *fakeServer) encode(m *protobufs.AgentToServer, re reaction, prefix []byte) []byte {
	if re.raw != nil {
		return re.raw
	}
	answer := &protobufs.ServerToAgent{}
	if re.answer != nil {
		answer = proto.Clone(re.answer).(*protobufs.ServerToAgent)
	}
	if answer.InstanceUid == nil {
		answer.InstanceUid = m.InstanceUid
	}
	if answer.Capabilities == 0 && answer.ErrorResponse == nil {
		answer.Capabilities = serverCapabilities
	}
	data, err := proto.Marshal(answer)
	if err != nil {
		s.t.Errorf("encode an answer: %v", err)
	}
	return append(prefix, data...)
}

// note keeps the message and decides on the reaction: one that is pending, else the script's.
func (s *fakeServer) note(m *protobufs.AgentToServer, connection int, header http.Header) reaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, received{m, time.Now(), connection, header})
	if len(s.pending) > 0 {
		re := s.pending[0]
		s.pending = s.pending[1:]
		return re
	}
	return s.react(m)
}

// push sends something to the agent: over WebSocket at once, over HTTP with the next answer.
func (s *fakeServer) push(re reaction) {
	s.t.Helper()
	s.mu.Lock()
	conn := s.current
	if conn == nil {
		s.pending = append(s.pending, re)
		s.mu.Unlock()
		return
	}
	last := s.messages[len(s.messages)-1]
	s.mu.Unlock()
	s.write(conn, last.AgentToServer, re)
}

func (s *fakeServer) all() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

func (s *fakeServer) tried() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts)
}

func (s *fakeServer) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// await waits for a message, from number `from` on, that fits, and returns it with the number after it.
func (s *fakeServer) await(from int, what string, fits func(received) bool) (received, int) {
	s.t.Helper()
	var found received
	next := 0
	harness.Await(s.t, 40*time.Second, what, func() (bool, any) {
		all := s.all()
		for i := min(from, len(all)); i < len(all); i++ {
			if fits(all[i]) {
				found, next = all[i], i+1
				return true, nil
			}
		}
		return false, fmt.Sprintf("%d messages, the last: %v", len(all), last(all))
	})
	return found, next
}

func last(all []received) any {
	if len(all) == 0 {
		return "none"
	}
	return all[len(all)-1].AgentToServer
}

// flap makes the server go away, with its connections, or come back.
func (s *fakeServer) flap(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = nil
	if away {
		s.refuse = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusBadGateway); return true }
		if s.current != nil {
			_ = s.current.CloseNow()
		}
	}
}
