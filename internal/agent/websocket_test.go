package agent

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

// TestWebSocketReconnects: the connection ends in each of these ways, and the report is sent again, in full.
func TestWebSocketReconnects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		misbehave func(conn *websocket.Conn) bool
		closed    websocket.StatusCode // what the agent says; 0: nothing is heard of it
	}{
		"lost before the first answer": {func(conn *websocket.Conn) bool { _ = conn.CloseNow(); return true }, 0},
		"closed by the server": {func(conn *websocket.Conn) bool {
			_ = conn.Close(websocket.StatusGoingAway, "")
			return true
		}, 0},
		"text": {func(conn *websocket.Conn) bool {
			_ = conn.Write(context.Background(), websocket.MessageText, encoded(loud()))
			return false
		}, websocket.StatusUnsupportedData},
		"oversize": {func(conn *websocket.Conn) bool {
			_ = conn.Write(context.Background(), websocket.MessageBinary, make([]byte, 5000))
			return false
		}, websocket.StatusMessageTooBig},
		"unavailable": {func(conn *websocket.Conn) bool {
			m := &protobufs.ServerToAgent{ErrorResponse: refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, 0)}
			_ = conn.Write(context.Background(), websocket.MessageBinary, append([]byte{0}, encoded(m)...))
			return false
		}, websocket.StatusNormalClosure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, &fakeServer{onSocket: func(conn *websocket.Conn, n int, _ *protobufs.AgentToServer) bool {
				return n == 0 && tt.misbehave(conn)
			}})
			settings := f.settings(t, WebSocket)
			settings.MaxMessage = 4096
			s := openSession(t, settings)
			uid := s.InstanceUID()
			s.Begin()
			all := f.messages(t, 2)
			require.Equal(t, everything, has(all[0]))
			require.Equal(t, everything, has(all[1]))
			require.EqualValues(t, 1, all[1].SequenceNum)
			f.await(t, func() bool { return f.conns == 2 && (tt.closed == 0 || len(f.closes) > 0 && f.closes[0] == tt.closed) })
			require.Equal(t, uid, s.InstanceUID())
			require.Eventually(t, s.Connected, patience, time.Millisecond)
		})
	}
}

// TestWebSocketGarbage changes nothing and is counted; the connection goes on.
func TestWebSocketGarbage(t *testing.T) {
	t.Parallel()
	f := serve(t, &fakeServer{onSocket: func(conn *websocket.Conn, n int, _ *protobufs.AgentToServer) bool {
		for _, data := range [][]byte{{}, append([]byte{1}, encoded(loud())...), []byte("\x00torn")} {
			_ = conn.Write(context.Background(), websocket.MessageBinary, data)
		}
		return false
	}})
	s := openSession(t, f.settings(t, WebSocket))
	uid := s.InstanceUID()
	s.Begin()
	require.Eventually(t, func() bool { _, received := s.Messages(); return received == 4 }, patience, time.Millisecond)
	require.Eventually(t, s.Connected, patience, time.Millisecond)
	require.Equal(t, uid, s.InstanceUID())
	setters["health"](s, "new")
	require.Equal(t, []string{"health"}, has(f.messages(t, 2)[1]))
	f.await(t, func() bool { return f.conns == 1 })
}

func TestWebSocketRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status       int
		header       string
		after        time.Duration
		unauthorized bool
		unavailable  bool
	}{
		"401":               {status: 401, unauthorized: true},
		"403":               {status: 403, unauthorized: true},
		"404":               {status: 404},
		"200":               {status: 200},
		"503":               {status: 503, unavailable: true},
		"503 with seconds":  {status: 503, header: "90", after: 90 * time.Second, unavailable: true},
		"429 with seconds":  {status: 429, header: "7", after: 7 * time.Second, unavailable: true},
		"503 for a year":    {status: 503, header: "31536000", after: maxRetryAfter, unavailable: true},
		"503 with nonsense": {status: 503, header: "soon", unavailable: true},
		"500 is not a wish": {status: 500, header: "90"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serve(t, &fakeServer{admit: func(w http.ResponseWriter, _ *http.Request) bool {
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				w.WriteHeader(tt.status)
				return false
			}})
			link, err := dialWebSocket(t.Context(), f.settings(t, WebSocket))
			require.Error(t, err)
			require.Nil(t, link)
			require.Equal(t, tt.after, retryAfter(err))
			if tt.unauthorized {
				require.ErrorIs(t, err, errUnauthorized)
			} else {
				require.NotErrorIs(t, err, errUnauthorized)
			}
			var unavailable *unavailableError
			if tt.unavailable {
				require.ErrorAs(t, err, &unavailable)
			} else {
				require.NotErrorAs(t, err, &unavailable)
			}
		})
	}
}

// TestWebSocketDeafServer does not answer the Close frame; closing is bounded all the same.
func TestWebSocketDeafServer(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := serve(t, &fakeServer{onSocket: func(*websocket.Conn, int, *protobufs.AgentToServer) bool {
		<-release
		return true
	}})
	link, err := dialWebSocket(t.Context(), f.settings(t, WebSocket))
	require.NoError(t, err)
	require.NoError(t, link.exchange(t.Context(), nil))
	f.messages(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	link.close(ctx)
	require.Less(t, time.Since(began), patience)
	close(release)
}
