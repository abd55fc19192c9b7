package steadyotlpreceiver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// counter is a TCP relay that counts what clients have got rid of.
type counter struct {
	net.Listener
	bytes atomic.Int64
}

func relay(t *testing.T, to string) *counter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &counter{Listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				return
			}
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
			go func() { _, _ = io.Copy(out, io.TeeReader(in, c)); _ = out.Close() }()
		}
	}()
	return c
}

func (c *counter) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return len(p), nil
}

// A message that waits is still with its client: the server has taken as much of it as it takes before anyone reads.
func TestHeldMessagesAreNotRead(t *testing.T) {
	g := freeAddress(t)
	s := tracesTo(both(g, freeAddress(t)))
	begin(t, s).stop(t, true)
	in, r := parkedNow()[0], relay(t, g)
	large := make([]byte, 1_500_000)
	_, _ = rand.Read(large)
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName(hex.EncodeToString(large))
	conn, done := dial(t, r.Addr().String()), make(chan error, 1)
	go func() {
		_, err := ptraceotlp.NewGRPCClient(conn).Export(context.Background(), ptraceotlp.NewExportRequestFromTraces(td))
		done <- err
	}()
	awaitHeld(t, in, 1)
	require.Never(t, func() bool { return r.bytes.Load() > 256<<10 }, 200*time.Millisecond, 10*time.Millisecond, "the held message is read")
	run := begin(t, s)
	require.NoError(t, <-done)
	require.Greater(t, r.bytes.Load(), int64(2*len(large)))
	run.stop(t, false)
}

// unread fails the test when it is read while the gate is closed.
type unread struct {
	t    *testing.T
	gate *gate
}

func (u unread) Read([]byte) (int, error) {
	u.gate.mu.Lock()
	defer u.gate.mu.Unlock()
	require.NotNil(u.t, u.gate.open, "the held body is read")
	return 0, io.EOF
}

func TestHeldBodiesAreNotRead(t *testing.T) {
	in := &inner{gate: newGate()}
	hooks := httpHook{hook{in: in, auth: httpAuth}}
	wrap, err := hooks.GetHTTPHandler(t.Context())
	require.NoError(t, err)
	read := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.ReadAll(r.Body) })
	handler, err := wrap(t.Context(), read)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", unread{t, in.gate}))
	}()
	awaitHeld(t, in, 1)
	in.gate.serve(&generation{http: in.handler})
	<-done
}

// What a client has not sent yet is no reason for a reload to wait.
func TestAReloadDoesNotWaitForSlowClients(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	next := &sink{}
	s := spec{config: both(g, h), next: consumers{traces: next}}
	run := begin(t, s)
	body, write := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+h+"/v1/traces", body)
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-protobuf")
	c, done := client(t), make(chan error, 1)
	go func() {
		response, err := c.Do(request)
		if err == nil {
			err = response.Body.Close()
		}
		done <- err
	}()
	content, err := traces().MarshalProto()
	require.NoError(t, err)
	_, err = write.Write(content[:1])
	require.NoError(t, err)
	for range 2 {
		run.stop(t, true)
		run = begin(t, s)
	}
	_, err = write.Write(content[1:])
	require.NoError(t, err)
	require.NoError(t, write.Close())
	require.NoError(t, <-done)
	require.EqualValues(t, 1, next.spans.Load())
	run.stop(t, false)
}
