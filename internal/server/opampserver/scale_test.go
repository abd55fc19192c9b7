package opampserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// nobody is a Fleet that only counts, so that the figures are the server's.
type nobody struct{ reports atomic.Int64 }

func (*nobody) Authenticate(*http.Request) (Principal, error) { return Principal{}, nil }
func (*nobody) Admit(Principal, uuid.UUID) error              { return nil }
func (*nobody) Gone(uuid.UUID, Reason)                        {}
func (*nobody) Dropped(uuid.UUID, error)                      {}
func (n *nobody) Report(context.Context, *Report) Reply       { n.reports.Add(1); return Reply{} }

// BenchmarkAgents connects agents over loopback addresses; their side is bare sockets and one goroutine for all.
//
//	go test -run '^$' -bench Agents -benchtime 5x ./internal/server/opampserver
func BenchmarkAgents(b *testing.B) {
	const n = 2000
	fleet := &nobody{}
	s := New(fleet, slog.New(slog.DiscardHandler), Options{})
	ts := httptest.NewUnstartedServer(s)
	require.NoError(b, ts.Listener.Close())
	var err error
	ts.Listener, err = net.Listen("tcp4", "0.0.0.0:0") // all of 127.0.0.0/8
	require.NoError(b, err)
	ts.Start()
	port := ts.Listener.Addr().(*net.TCPAddr).Port
	conns, first, beats := make([]net.Conn, n), make([][]byte, n), make([][]byte, n)
	b.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
		_ = s.Shutdown(context.Background())
		ts.Close()
	})
	for i := range n {
		uid := newUID()
		first[i], beats[i] = masked(frameOf(b, full(uid, 0))), masked(frameOf(b, beat(uid, 1)))
	}
	empty := heap()
	begin := time.Now()
	for i := range n {
		conns[i] = upgrade(b, fmt.Sprintf("127.0.%d.%d:%d", i/250, 1+i%250, port))
	}
	connected := time.Since(begin)
	idle := heap()
	all := func(frames [][]byte) {
		want := fleet.reports.Load() + n
		for i, c := range conns {
			_, err := c.Write(frames[i])
			require.NoError(b, err)
		}
		for i := range conns {
			answer(b, conns[i])
		}
		require.Equal(b, want, fleet.reports.Load())
	}
	all(first)
	b.Logf("%d agents connected in %v; heap and stacks per connection: %d bytes idle, %d with the state of a small agent", n, connected.Round(time.Millisecond), (idle-empty)/n, (heap()-empty)/n)
	start, rounds := cpu(), 0
	for b.Loop() {
		all(beats)
		rounds++
	}
	b.Logf("CPU per heartbeat, both sides and the kernel: %v", (cpu()-start)/time.Duration(n*rounds))
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// masked is a binary frame with a mask of zeros.
func masked(payload []byte) []byte {
	header := []byte{0x82, 0x80 | byte(len(payload)), 0, 0, 0, 0}
	if len(payload) > 125 {
		header = []byte{0x82, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0}
	}
	return append(header, payload...)
}

func upgrade(b *testing.B, address string) net.Conn {
	c, err := net.Dial("tcp", address)
	require.NoError(b, err)
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n\r\n", Path)
	require.NoError(b, err)
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	require.NoError(b, err)
	require.Contains(b, string(buf[:n]), "101 Switching Protocols")
	return c
}

func answer(b *testing.B, c net.Conn) {
	var buf [256]byte
	n, err := c.Read(buf[:])
	require.NoError(b, err)
	require.Equal(b, byte(0x82), buf[0])
	require.Equal(b, n, 2+int(buf[1]))
}
