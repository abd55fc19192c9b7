package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Ports are handed out below the range that the kernel gives to outgoing connections (from 32768 on),
// so that no client of another test can take one between its choice and its use.
const (
	firstPort = 20000
	lastPort  = 32000
)

// portMu guards nextPort.
var (
	portMu   sync.Mutex
	nextPort = firstPort + rand.IntN(lastPort-firstPort)
)

// FreePort returns a port that nothing listens on at host, another one at each call.
func FreePort(t testing.TB, host string) int {
	t.Helper()
	portMu.Lock()
	defer portMu.Unlock()
	for range lastPort - firstPort {
		nextPort++
		if nextPort > lastPort {
			nextPort = firstPort
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, nextPort)); err == nil {
			_ = l.Close()
			return nextPort
		}
	}
	t.Fatalf("no free port on %s between %d and %d", host, firstPort, lastPort)
	return 0
}
