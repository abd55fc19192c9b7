package fleet

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/apiv1"
)

func zipped(a *speaker, data []byte) []byte {
	a.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	require.NoError(a, err)
	require.NoError(a, z.Close())
	return b.Bytes()
}

// requireBadRequest requires that nothing is beside the error.
func (a *speaker) requireBadRequest(m *protobufs.ServerToAgent) {
	a.Helper()
	require.Equal(a, protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, m.GetErrorResponse().GetType())
	m.ErrorResponse, m.InstanceUid = nil, nil
	require.Zero(a, proto.Size(m), "%v", m)
}

// answers makes a duty of how a POST of a full report with these headers is answered.
func answers(name string, code int, header ...string) duty {
	return duty{name: "Plain HTTP Transport/" + name, over: overHTTP, run: func(a *speaker) {
		body := a.encoded(a.full)
		for _, h := range header {
			if h == "Content-Encoding: gzip" {
				body = zipped(a, body)
			}
		}
		resp, data := a.post(body, header...)
		require.Equal(a, code, resp.StatusCode, "%s", data)
		if code == http.StatusOK {
			require.Equal(a, "application/x-protobuf", resp.Header.Get("Content-Type"))
			require.Equal(a, a.uid[:], a.decoded(data).InstanceUid)
		}
	}}
}

// responds makes a duty of the answer to anything else.
func responds(name string, code int, method, url string, header string) duty {
	return duty{name: "Plain HTTP Transport/" + name, over: overHTTP, run: func(a *speaker) {
		resp, data := a.request(method, strings.Replace(a.server.HTTP(), "/v1/opamp", url, 1), nil, "Content-Type: ")
		require.Equal(a, code, resp.StatusCode, "%s", data)
		if header != "" {
			name, value, _ := strings.Cut(header, ": ")
			require.Equal(a, value, resp.Header.Get(name))
		}
	}}
}

// httpDuties are about requests.
var httpDuties = []duty{
	answers("the content type is what tells the transports apart", 200),
	answers("parameters of the content type", 200, "Content-Type: application/x-protobuf; charset=utf-8"),
	answers("another content type", 415, "Content-Type: application/json"),
	answers("no content type", 415, "Content-Type: "),
	answers("gzip", 200, "Content-Encoding: gzip"),
	answers("identity", 200, "Content-Encoding: identity"),
	answers("deflate", 415, "Content-Encoding: deflate"),
	answers("an unknown encoding", 415, "Content-Encoding: zstd"),
	answers("OpAMP-Instance-UID that names another agent", 200, "OpAMP-Instance-UID: 01890a5d-ac96-774b-bcce-b302099a8057"),
	answers("OpAMP-Instance-UID that names nobody", 200, "OpAMP-Instance-UID: me"),
	responds("a GET without an upgrade", 426, http.MethodGet, "/v1/opamp", "Upgrade: websocket"),
	responds("another method", 405, http.MethodPut, "/v1/opamp", "Allow: GET, POST"),
	responds("a HEAD", 405, http.MethodHead, "/v1/opamp", "Allow: GET, POST"),
	responds("DELETE", 405, http.MethodDelete, "/v1/opamp", "Allow: GET, POST"),
	responds("another path", 404, http.MethodPost, "/v1/other", ""),
	responds("a path below", 404, http.MethodPost, "/v1/opamp/agents", ""),
	{name: "Plain HTTP Transport/OpAMP-Instance-UID that names the agent", over: overHTTP, run: func(a *speaker) {
		resp, data := a.post(a.encoded(a.full), "OpAMP-Instance-UID: "+a.uid.String())
		require.Equal(a, http.StatusOK, resp.StatusCode)
		require.Nil(a, a.decoded(data).ErrorResponse)
	}},
	{name: "Plain HTTP Transport/an empty body is a BAD_REQUEST", over: overHTTP, run: func(a *speaker) {
		resp, data := a.post(nil)
		require.Equal(a, http.StatusBadRequest, resp.StatusCode)
		a.requireBadRequest(a.decoded(data))
	}},
	{name: "Plain HTTP Transport/what is not gzip is a BAD_REQUEST", over: overHTTP, run: func(a *speaker) {
		body := a.encoded(a.full)
		for _, body := range [][]byte{body, zipped(a, body)[:30]} {
			resp, data := a.post(body, "Content-Encoding: gzip")
			require.Equal(a, http.StatusBadRequest, resp.StatusCode)
			a.requireBadRequest(a.decoded(data))
		}
	}},
	{name: "Plain HTTP Transport/an answer is compressed if that is accepted, and only then", over: overHTTP, run: func(a *speaker) {
		a.release("# " + strings.Repeat("long ", 2000) + "\nreceivers: {}\n")
		a.take()
		for accept, want := range map[string]string{"": "", "gzip": "gzip", "br, gzip;q=0.5": "gzip", "gzip;q=0": "", "identity": "", "br": ""} {
			a.leaveQuietly()
			resp, data := a.post(a.encoded(a.full), "Accept-Encoding: "+accept)
			require.Equal(a, want, resp.Header.Get("Content-Encoding"), accept)
			if want == "gzip" {
				r, err := gzip.NewReader(bytes.NewReader(data))
				require.NoError(a, err)
				data, err = io.ReadAll(r)
				require.NoError(a, err)
			}
			require.NotNil(a, a.decoded(data).RemoteConfig, accept)
		}
	}},
	{name: "Plain HTTP Message Size Limits/a body over the limit is 413", over: overHTTP, run: func(a *speaker) {
		resp, _ := a.post(make([]byte, serverMaxMessage+1))
		require.Equal(a, http.StatusRequestEntityTooLarge, resp.StatusCode)
		require.Nil(a, a.hello().ErrorResponse)
	}},
	{name: "Plain HTTP Message Size Limits/a body over the limit after decompression is 413", over: overHTTP, run: func(a *speaker) {
		resp, _ := a.post(zipped(a, make([]byte, 2*serverMaxMessage)), "Content-Encoding: gzip")
		require.Equal(a, http.StatusRequestEntityTooLarge, resp.StatusCode)
		require.Nil(a, a.hello().ErrorResponse)
	}},
}

// leaveQuietly is a goodbye of whoever may not be known.
func (a *speaker) leaveQuietly() {
	a.Helper()
	a.say(&protobufs.AgentToServer{AgentDisconnect: &protobufs.AgentDisconnect{}})
}

// bomb writes one message of zeros, a MiB at a time, until the server has had enough.
func (a *speaker) bomb(size int) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), soon)
	defer cancel()
	w, err := a.ws.Writer(ctx, websocket.MessageBinary)
	require.NoError(a, err)
	for ; size > 0 && err == nil; size -= 1 << 20 {
		_, err = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close() // the server need not have read all of it
}

// webSocketDuties are about frames.
var webSocketDuties = []duty{
	{name: "WebSocket Message Format/a header that is not 0", over: overWebSocket, run: func(a *speaker) {
		for _, frame := range [][]byte{{1}, {0x80, 0x01}, append([]byte{7}, a.encoded(a.full)...)} {
			a.write(frame)
			a.requireBadRequest(a.read())
		}
		require.Nil(a, a.hello().ErrorResponse, "it may go on")
	}},
	{name: "WebSocket Message Format/an empty frame", over: overWebSocket, run: func(a *speaker) {
		a.write(nil)
		a.requireBadRequest(a.read())
		require.Nil(a, a.hello().ErrorResponse, "it may go on")
	}},
	{name: "WebSocket Message Format/a header with nothing behind it", over: overWebSocket, run: func(a *speaker) {
		a.write([]byte{0})
		a.requireBadRequest(a.read())
	}},
	{name: "WebSocket Message Format/a text frame ends the connection", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		require.NoError(a, a.ws.Write(a.Context(), websocket.MessageText, []byte("hello")))
		a.awaitClose(websocket.StatusUnsupportedData)
	}},
	{name: "WebSocket Message Format/many malformed messages in a row end the connection", over: overWebSocket, run: func(a *speaker) {
		for i := range 9 {
			a.write([]byte{1})
			a.requireBadRequest(a.read())
			if i == 4 {
				require.Nil(a, a.hello().ErrorResponse, "a good one begins the count anew")
			}
		}
		for range 10 {
			if a.ws.Write(a.Context(), websocket.MessageBinary, []byte{1}) != nil {
				break
			}
		}
		a.awaitClose(websocket.StatusInvalidFramePayloadData)
	}},
	{name: "Closing Connection/a Close frame is answered", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		require.NoError(a, a.ws.Close(websocket.StatusNormalClosure, ""))
		a.believed("away", func(v apiv1.Agent) bool { return v.State == "disconnected" })
	}},
	{name: "WebSocket Transport/permessage-deflate in every mode", over: overWebSocket, run: func(a *speaker) {
		for _, mode := range []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionNoContextTakeover, websocket.CompressionContextTakeover} {
			a.dial(&websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
			require.Nil(a, a.hello().ErrorResponse, fmt.Sprint(mode))
			require.Equal(a, a.uid[:], a.beat().InstanceUid, fmt.Sprint(mode))
			a.hangUp()
		}
	}},
	{name: "WebSocket Message Size Limits/a message over the limit ends the connection with 1009", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		a.bomb(serverMaxMessage + 2<<20)
		a.awaitClose(websocket.StatusMessageTooBig)
	}},
	{name: "WebSocket Message Size Limits/a compressed message over the limit ends the connection with 1009", over: overWebSocket, run: func(a *speaker) {
		a.dial(&websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
		a.hello()
		a.bomb(2 * serverMaxMessage)
		a.awaitClose(websocket.StatusMessageTooBig)
	}},
}
