package swarm

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCost bounds what a connected agent costs: the server's side is bare sockets that one goroutine serves.
func TestCost(t *testing.T) {
	const n = 2000
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- serve(l, n) }()
	empty := held()
	s, err := New(Config{URL: "ws://" + l.Addr().String() + "/", Agents: n, ConnectRate: 1e6})
	require.NoError(t, err)
	_, err = s.Connect(t.Context(), 1)
	require.NoError(t, err)
	cost := (held() - empty) / n
	t.Logf("%d bytes a connected agent, stacks and the other end's socket included", cost)
	require.Less(t, cost, uint64(24<<10))
	s.Drop(n) // this server would not answer a goodbye
	s.Close()
	require.NoError(t, l.Close())
	require.NoError(t, <-served)
}

func held() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// serve upgrades and answers n agents, one after the other, and keeps their connections until the listener is closed.
func serve(l net.Listener, n int) error {
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		conns = append(conns, c)
		if err := serveOne(c, buf); err != nil {
			return err
		}
	}
}

func serveOne(c net.Conn, buf []byte) error {
	if _, err := c.Read(buf); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:8]); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf[:binary.BigEndian.Uint16(buf[2:])]); err != nil {
		return err
	}
	_, err := c.Write([]byte{0x82, 1, 0})
	return err
}
