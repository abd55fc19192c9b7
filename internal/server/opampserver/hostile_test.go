package opampserver

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// unreadable are messages that get a BAD_REQUEST with nothing beside it on both transports.
var unreadable = []struct {
	name string
	data []byte
}{
	{"a truncated message", []byte{0x0a, 0x10, 1, 2}},
	{"a huge length", append([]byte{0x0a}, protowire.AppendVarint(nil, 1<<62)...)},
	{"a varint that does not end", bytes.Repeat([]byte{0xff}, 32)},
	{"a field of the wrong type", []byte{0x0f, 0x01}},
	{"no instance_uid", nil},
	{"an instance_uid of 15 bytes", append([]byte{0x0a, 15}, make([]byte, 15)...)},
	{"an instance_uid of 17 bytes", append([]byte{0x0a, 17}, bytes.Repeat([]byte{1}, 17)...)},
	{"an instance_uid of zeros", append([]byte{0x0a, 16}, make([]byte, 16)...)},
	{"a health tree without end", nested(20_000)},
	{"a hash of a configuration that is none", encoded(&protobufs.AgentToServer{RemoteConfigStatus: &protobufs.RemoteConfigStatus{LastRemoteConfigHash: make([]byte, 257)}})},
	{"a hash of settings that is none", encoded(&protobufs.AgentToServer{ConnectionSettingsStatus: &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: make([]byte, 257)}})},
	{"a hash of packages that is none", encoded(&protobufs.AgentToServer{PackageStatuses: &protobufs.PackageStatuses{ServerProvidedAllPackagesHash: make([]byte, 257)}})},
	{"a hash of components that is none", encoded(&protobufs.AgentToServer{AvailableComponents: &protobufs.AvailableComponents{Hash: make([]byte, 257)}})},
	{"custom capabilities without end", encoded(&protobufs.AgentToServer{CustomCapabilities: &protobufs.CustomCapabilities{Capabilities: make([]string, 1025)}})},
	{"text that is not UTF-8", func() []byte {
		uid := newUID()
		return append(append([]byte{0x0a, 16}, uid[:]...), 0x2a, 3, 0x22, 1, 0xff)
	}()},
}

// encoded is a message of a new agent.
func encoded(m *protobufs.AgentToServer) []byte {
	uid := newUID()
	m.InstanceUid = uid[:]
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data
}

// nested is a health tree of the given depth.
func nested(depth int) []byte {
	var body []byte
	for range depth {
		entry := protowire.AppendBytes(append(protowire.AppendString([]byte{0x0a}, "x"), 0x12), body)
		body = protowire.AppendBytes([]byte{0x32}, entry)
		if len(body) > 60_000 { // deep enough for the decoder's own limit
			break
		}
	}
	uid := newUID()
	return protowire.AppendBytes(append(append([]byte{0x0a, 16}, uid[:]...), 0x2a), body)
}

func TestUnreadableMessages(t *testing.T) {
	t.Parallel()
	for _, c := range unreadable {
		t.Run("ServerErrorResponse/"+c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, Options{})
			p := g.dial()
			p.raw(append([]byte{0}, c.data...))
			requireBadRequest(t, p.read())
			require.Nil(t, p.say(full(newUID(), 0)).ErrorResponse, "the connection goes on")

			resp, data := httpPeer{g}.post(c.data)
			require.Equal(t, http.StatusBadRequest, resp.StatusCode)
			requireBadRequest(t, answerOf(t, data))
		})
	}
}

func requireBadRequest(t *testing.T, m *protobufs.ServerToAgent) {
	t.Helper()
	require.Equal(t, protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, m.GetErrorResponse().GetType())
	m.ErrorResponse, m.InstanceUid = nil, nil
	require.Zero(t, proto.Size(m), "%v", m)
}

func TestWebSocketFrames(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		run  func(g *rig, p *wsPeer)
	}{
		{"WebSocket Message Format/a header that is not 0", func(g *rig, p *wsPeer) {
			p.raw([]byte{1, 0})
			requireBadRequest(g.T, p.read())
			p.raw([]byte{0x80, 0x01})
			requireBadRequest(g.T, p.read())
		}},
		{"WebSocket Message Format/an empty frame", func(g *rig, p *wsPeer) {
			p.raw(nil)
			requireBadRequest(g.T, p.read())
		}},
		{"WebSocket Message Format/a text frame ends the connection with 1003", func(_ *rig, p *wsPeer) {
			require.NoError(p, p.ws.Write(context.Background(), websocket.MessageText, []byte("hello")))
			p.awaitClose(websocket.StatusUnsupportedData)
		}},
		{"WebSocket Message Format/nothing but garbage ends the connection with 1007", func(_ *rig, p *wsPeer) {
			for range mostMalformed {
				p.raw([]byte{1})
			}
			p.awaitClose(websocket.StatusInvalidFramePayloadData)
		}},
		{"WebSocket Message Size Limits/a message above the limit ends the connection with 1009", func(g *rig, p *wsPeer) {
			p.raw(frameOf(g.T, with(full(newUID(), 0), func(m *protobufs.AgentToServer) { m.EffectiveConfig = incompressible(1 << 20) })))
			p.awaitClose(websocket.StatusMessageTooBig)
		}},
		{"WebSocket Message Size Limits/a deflate bomb ends the connection with 1009", func(_ *rig, p *wsPeer) {
			p.raw(make([]byte, 64<<20))
			p.awaitClose(websocket.StatusMessageTooBig)
		}},
		{"WebSocket Message Size Limits/a message at the limit is taken", func(g *rig, p *wsPeer) {
			m := with(full(newUID(), 0), func(m *protobufs.AgentToServer) { m.EffectiveConfig = incompressible(1000) })
			m.EffectiveConfig = incompressible(1000 + 1<<20 - proto.Size(m) - 8)
			for proto.Size(m) < 1<<20 {
				m.EffectiveConfig.ConfigMap.ConfigMap[""].ContentType += "x"
			}
			require.Equal(g, 1<<20, proto.Size(m))
			require.Nil(g, p.say(m).ErrorResponse)
		}},
		{"Closing Connection/without a goodbye", func(g *rig, p *wsPeer) {
			uid := newUID()
			p.say(full(uid, 0))
			_ = p.ws.CloseNow()
			g.awaitGone(uid, ReasonLost)
		}},
		{"WebSocket Message Exchange/a flood gets one answer each, in order", func(g *rig, p *wsPeer) {
			const n = 2000
			uids := make([]uuid.UUID, n)
			go func() {
				for i := range uids {
					uids[i] = newUID()
					if p.ws.Write(context.Background(), websocket.MessageBinary, frameOf(g.T, full(uids[i], 0))) != nil {
						return
					}
				}
			}()
			for i := range n {
				require.Equal(g, uids[i][:], p.read().InstanceUid)
			}
		}},
		{"WebSocket Transport/10,000 agents on one connection are bounded", func(g *rig, p *wsPeer) {
			refused := 0
			for range 10_000 {
				if p.say(beat(newUID(), 0)).ErrorResponse != nil {
					refused++
				}
			}
			require.Equal(g, 10_000-g.opts.MaxAgentsPerConnection, refused)
			require.Equal(g, g.opts.MaxAgentsPerConnection, g.Metrics().Agents)
		}},
		{"WebSocket Transport/another UID on the same connection is another agent", func(g *rig, p *wsPeer) {
			a, b := newUID(), newUID()
			p.say(full(a, 0))
			p.say(full(b, 0))
			require.NoError(g, g.Push(a, &Offer{RemoteConfig: config()}))
			require.Equal(g, a[:], p.read().InstanceUid)
			require.NoError(g, g.Push(b, &Offer{RemoteConfig: config()}))
			require.Equal(g, b[:], p.read().InstanceUid)
			_ = p.ws.CloseNow()
			g.awaitGone(a, ReasonLost)
			g.awaitGone(b, ReasonLost)
		}},
		{"Throttling/more agents than may be remembered", func(g *rig, p *wsPeer) {
			g.opts.MaxAgents = 1
			p.say(full(newUID(), 0))
			require.Equal(g, protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, p.say(full(newUID(), 0)).ErrorResponse.Type)
		}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, Options{MaxMessage: 1 << 20, MaxAgentsPerConnection: 2500})
			c.run(g, g.dial())
		})
	}
}

func incompressible(n int) *protobufs.EffectiveConfig {
	body := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(body) // it returns no error
	return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: body}}}}
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(data)
	_ = z.Close()
	return b.Bytes()
}

func TestHTTPRequests(t *testing.T) {
	t.Parallel()
	hello := frameOf(t, full(newUID(), 0))[1:]
	tests := []struct {
		name, method string
		body         []byte
		header       []string
		status       int
	}{
		{"Plain HTTP Transport/parameters of the Content-Type", "POST", hello, []string{"Content-Type: application/x-protobuf; charset=utf-8"}, 200},
		{"Plain HTTP Transport/another Content-Type", "POST", hello, []string{"Content-Type: application/json"}, 415},
		{"Plain HTTP Transport/no Content-Type", "POST", hello, []string{"Content-Type: "}, 415},
		{"Plain HTTP Transport/another method", "PUT", hello, nil, 405},
		{"Plain HTTP Transport/a GET without an upgrade", "GET", nil, nil, 426},
		{"Plain HTTP Transport/gzip", "POST", zipped(hello), []string{"Content-Encoding: gzip"}, 200},
		{"Plain HTTP Transport/identity", "POST", hello, []string{"Content-Encoding: identity"}, 200},
		{"Plain HTTP Transport/an unknown Content-Encoding", "POST", hello, []string{"Content-Encoding: br"}, 415},
		{"Plain HTTP Transport/a body that is not gzip", "POST", hello, []string{"Content-Encoding: gzip"}, 400},
		{"Plain HTTP Transport/truncated gzip", "POST", zipped(hello)[:20], []string{"Content-Encoding: gzip"}, 400},
		{"Plain HTTP Message Size Limits/a gzip bomb", "POST", zipped(make([]byte, 64<<20)), []string{"Content-Encoding: gzip"}, 413},
		{"Plain HTTP Message Size Limits/gzip members without content", "POST", bytes.Repeat(zipped(nil), 50_000), []string{"Content-Encoding: gzip"}, 413},
		{"Plain HTTP Message Size Limits/a body above the limit", "POST", make([]byte, 1<<20+1), nil, 413},
		{"OpAMP-Instance-UID/a mismatch is only logged", "POST", hello, []string{"OpAMP-Instance-UID: x"}, 200},
	}
	g := newRig(t, Options{MaxMessage: 1 << 20})
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, Path, bytes.NewReader(c.body))
			r.Header.Set("Content-Type", "application/x-protobuf")
			for _, h := range c.header {
				name, value, _ := strings.Cut(h, ": ")
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			require.Equal(t, c.status, w.Code, "%s", w.Body)
			require.Zero(t, g.inFlight.Load())
		})
	}
}

func TestHTTPResponsesAreCompressedWhenAccepted(t *testing.T) {
	t.Parallel()
	g := newRig(t, Options{})
	big := config()
	big.Config.ConfigMap = map[string]*protobufs.AgentConfigFile{"": {Body: make([]byte, 10_000)}}
	g.fleet.set(func() { g.fleet.reply = func(*Report) Reply { return Reply{Offer: &Offer{RemoteConfig: big}} } })
	for accept, want := range map[string]string{"gzip": "gzip", "gzip;q=0": "", "br, GZIP;q=0.5": "gzip", "identity": "", "*": "gzip"} {
		resp, data := httpPeer{g}.post(frameOf(t, full(newUID(), 0))[1:], "Accept-Encoding: "+accept)
		require.Equal(t, want, resp.Header.Get("Content-Encoding"), accept)
		require.Equal(t, want == "gzip", len(data) < 1000, accept)
	}
}

// rawRequest writes bytes as they are and returns the answer's status.
func (g *rig) rawConn() net.Conn {
	g.Helper()
	c, err := net.Dial("tcp", g.http.Listener.Addr().String())
	require.NoError(g, err)
	g.Cleanup(func() { _ = c.Close() })
	require.NoError(g, c.SetDeadline(time.Now().Add(limit)))
	return c
}

func TestSlowLoris(t *testing.T) {
	t.Parallel()
	g := newRig(t, Options{FirstMessage: 50 * time.Millisecond, MessageTimeout: 100 * time.Millisecond})
	t.Run("Plain HTTP Transport/a body that never ends", func(t *testing.T) {
		c := g.rawConn()
		_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100\r\n\r\n\x0a", Path)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		_ = resp.Body.Close()
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	})
	t.Run("WebSocket Transport/a connection that says nothing", func(t *testing.T) {
		p := g.dial()
		p.T = t
		p.awaitClose(websocket.StatusPolicyViolation)
	})
	t.Run("WebSocket Transport/a message that never ends", func(t *testing.T) {
		ws, _, err := websocket.Dial(context.Background(), g.http.URL+Path, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = ws.CloseNow() })
		p := &wsPeer{t, ws}
		p.say(full(newUID(), 0))
		w, err := p.ws.Writer(context.Background(), websocket.MessageBinary)
		require.NoError(t, err)
		_, err = w.Write(make([]byte, 16<<10)) // more than the client's buffer
		require.NoError(t, err)
		p.awaitClose(websocket.StatusPolicyViolation)
	})
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	g := newRig(t, Options{})
	status := func(upgrade bool) *http.Response {
		req, err := http.NewRequest(http.MethodPost, g.http.URL+Path, bytes.NewReader(frameOf(t, full(newUID(), 0))[1:]))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-protobuf")
		if upgrade {
			req.Method, req.Body = http.MethodGet, nil
			req.ContentLength = 0
			req.Header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		}
		resp, err := g.http.Client().Do(req)
		require.NoError(t, err)
		_ = resp.Body.Close()
		return resp
	}
	for _, upgrade := range []bool{false, true} {
		t.Run("Authentication/upgrade="+strconv.FormatBool(upgrade), func(t *testing.T) {
			g.fleet.set(func() { g.fleet.auth = func(*http.Request) error { return fmt.Errorf("secret reason") } })
			require.Equal(t, http.StatusUnauthorized, status(upgrade).StatusCode)
			g.fleet.set(func() {
				g.fleet.auth = func(*http.Request) error { return &StatusError{Code: 429, RetryAfter: 7 * time.Second} }
			})
			resp := status(upgrade)
			require.Equal(t, http.StatusTooManyRequests, resp.StatusCode)
			require.Equal(t, "7", resp.Header.Get("Retry-After"))
		})
	}
	require.Zero(t, g.Metrics().Agents)
}

func TestThrottling(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		opts Options
	}{
		{"Throttling/connections a second", Options{AcceptRate: 1, AcceptBurst: 1}},
		{"Throttling/connections in all", Options{MaxConnections: 1}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, c.opts)
			p := g.dial()
			p.say(full(newUID(), 0))
			_, resp, err := websocket.Dial(context.Background(), g.http.URL+Path, nil)
			require.Error(t, err)
			require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
			after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
			require.NoError(t, err)
			require.True(t, after >= 30 && after <= 60, "%d", after)
			require.EqualValues(t, 1, g.Metrics().Refused)
		})
	}
	t.Run("Throttling/memory for large messages", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, Options{MaxInFlight: 1 << 10})
		body := frameOf(t, with(full(newUID(), 0), func(m *protobufs.AgentToServer) { m.EffectiveConfig = incompressible(1 << 20) }))
		resp, _ := httpPeer{g}.post(body[1:])
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		p := g.dial()
		p.raw(body)
		p.awaitClose(websocket.StatusTryAgainLater)
		require.Zero(t, g.inFlight.Load())
	})
	t.Run("Throttling/handshakes at once", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, Options{MaxHandshakes: 1})
		entered, leave := make(chan struct{}), make(chan struct{})
		g.fleet.set(func() {
			g.fleet.auth = func(*http.Request) error { entered <- struct{}{}; <-leave; return nil }
		})
		first := make(chan error, 1)
		go func() {
			ws, _, err := websocket.Dial(context.Background(), g.http.URL+Path, nil)
			if err == nil {
				_ = ws.CloseNow()
			}
			first <- err
		}()
		<-entered
		_, resp, err := websocket.Dial(context.Background(), g.http.URL+Path, nil)
		require.Error(t, err)
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		close(leave)
		require.NoError(t, <-first)
	})
}
