package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
)

const patience = 20 * time.Second

// listening is a client of the stream.
type listening struct {
	t      *testing.T
	answer *http.Response
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// listen connects; the server is one of the test.
func listen(t *testing.T, server *httptest.Server, lastID, secret string) *listening {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+prefix+"/events", nil)
	require.NoError(t, err)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	w, err := server.Client().Do(r)
	require.NoError(t, err)
	l := &listening{t: t, answer: w, lines: bufio.NewReader(w.Body), cancel: cancel}
	t.Cleanup(l.leave)
	return l
}

func (l *listening) leave() {
	l.cancel()
	_ = l.answer.Body.Close()
}

// next is the next block of lines, without the empty one that ends it.
func (l *listening) next() string {
	l.t.Helper()
	var b strings.Builder
	for {
		line, err := l.lines.ReadString('\n')
		require.NoError(l.t, err, "read so far: %s", b.String())
		if line == "\n" {
			return b.String()
		}
		b.WriteString(line)
	}
}

func serveRig(t *testing.T, g *rig) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	t.Cleanup(g.API.Close) // before the server closes, which waits for the streams
	return server
}

func (g *rig) touch(t *testing.T, n int) {
	t.Helper()
	g.saveAgents(t, fleet.Agent{UID: fmt.Sprintf("00000000-0000-7000-8000-%012d", n)})
}

func event(revision int64, kind, key string, deleted bool) string {
	return fmt.Sprintf("id: %d\nevent: %s\ndata: {\"key\":%q,\"deleted\":%t,\"revision\":%d}\n", revision, kind, key, deleted, revision)
}

func TestChangesAreStreamed(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	server := serveRig(t, g)
	g.touch(t, 1)
	l := listen(t, server, "", "")
	require.Equal(t, "text/event-stream", l.answer.Header.Get("Content-Type"))
	require.Equal(t, "retry: 2000\nid: 1\n", l.next(), "what was before is not told")
	g.touch(t, 2)
	require.Equal(t, event(2, "agent", uid2, false), l.next())
	_, err := g.store.SaveVersion(t.Context(), fleet.Version{Configuration: "team/base", Body: []byte("a")}, store.AnyVersion)
	require.NoError(t, err)
	require.Equal(t, event(3, "configuration", "team/base", false), l.next())
	require.NoError(t, g.store.DeleteConfiguration(t.Context(), "team/base"))
	require.Equal(t, event(4, "configuration", "team/base", true), l.next())
	l.leave()

	g.touch(t, 3)
	g.touch(t, 1)
	l = listen(t, server, "2", "")
	require.Equal(t, "retry: 2000\nid: 2\n", l.next())
	require.Equal(t, event(4, "configuration", "team/base", true), l.next(), "each thing once")
	require.Equal(t, event(5, "agent", "00000000-0000-7000-8000-000000000003", false), l.next())
	require.Equal(t, event(6, "agent", uid1, false), l.next())
	g.touch(t, 2)
	require.Equal(t, event(7, "agent", uid2, false), l.next())

	l = listen(t, server, "1000", "")
	require.Equal(t, "retry: 2000\nid: 0\n", l.next(), "a revision of another database begins anew")
	require.Equal(t, event(4, "configuration", "team/base", true), l.next())
	for _, id := range []string{"x", "-1", "1.5"} {
		r := ask("GET", prefix+"/events", "")
		r.Header.Set("Last-Event-ID", id)
		refused(t, g.serve(r), http.StatusBadRequest)
	}
}

func TestPollingRunsOnlyWhileSomebodyListens(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	server := serveRig(t, g)
	polls := func() bool {
		g.hub.mu.Lock()
		defer g.hub.mu.Unlock()
		return g.hub.stop != nil
	}
	require.False(t, polls())
	for range 3 {
		one, two := listen(t, server, "", ""), listen(t, server, "", "")
		one.next()
		two.next()
		require.True(t, polls())
		one.leave()
		g.touch(t, 1)
		two.next()
		two.leave()
		require.Eventually(t, func() bool { return !polls() }, patience, time.Millisecond)
	}
}

// Writers and listeners that come at any moment: each sees every change after it came.
func TestNothingIsLostBetweenReplayAndFollowing(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	server := serveRig(t, g)
	const changes = 60
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range changes {
			g.touch(t, i+1)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for range 6 {
		l := listen(t, server, "0", "")
		l.next()
		for i := range changes {
			require.True(t, strings.HasPrefix(l.next(), fmt.Sprintf("id: %d\n", i+1)), "change %d", i+1)
			if i == 20 {
				break // leave in the middle
			}
		}
		l.leave()
	}
	l := listen(t, server, "0", "")
	l.next()
	for i := range changes {
		require.True(t, strings.HasPrefix(l.next(), fmt.Sprintf("id: %d\n", i+1)), "change %d", i+1)
	}
	<-written
}

func TestKeepAliveAndRevocation(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.keepAlive = 20 * time.Millisecond
	server := serveRig(t, g)
	secret, token, err := g.keeper.Create(t.Context(), "test", auth.Request{Role: apiv1.RoleViewer, Uses: -1})
	require.NoError(t, err)
	l := listen(t, server, "", secret)
	l.next()
	require.Equal(t, ": alive\n", l.next())
	require.NoError(t, g.keeper.Revoke(t.Context(), "test", token.ID))
	_, err = io.Copy(io.Discard, l.lines)
	require.NoError(t, err, "the stream ends")
}

func TestCloseEndsStreams(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	server := serveRig(t, g)
	l := listen(t, server, "", "")
	l.next()
	g.API.Close()
	_, err := io.Copy(io.Discard, l.lines)
	require.NoError(t, err)
	w := g.do("GET", "/events", "")
	refused(t, w, http.StatusServiceUnavailable)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}

func TestSlowListenersAreDropped(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	slow, ok := g.hub.listen(0)
	require.True(t, ok)
	fast, ok := g.hub.listen(0)
	require.True(t, ok)
	for i := range listenerBuffer + 1 {
		require.True(t, g.hub.publish(t.Context(), []store.Change{{Revision: int64(i)}}))
		<-fast.batches
	}
	n := 0
	for range slow.batches { // ends: it is closed
		n++
	}
	require.Equal(t, listenerBuffer, n, "what fits is still there")
	require.True(t, g.hub.publish(t.Context(), []store.Change{{Revision: 99}}))
	require.Equal(t, int64(99), (<-fast.batches)[0].Revision)
	g.hub.leave(slow)
	g.hub.leave(fast)
}

// A client that takes nothing at all must not keep others from anything.
func TestADeafClientDisturbsNobody(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	server := serveRig(t, g)
	deaf, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = deaf.Close() })
	_, err = fmt.Fprintf(deaf, "GET %s/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n", prefix)
	require.NoError(t, err)
	l := listen(t, server, "", "")
	l.next()
	for i := range 8 {
		g.touch(t, i+1)
		require.Contains(t, l.next(), "event: agent\n")
	}
}

func TestListenersAreBounded(t *testing.T) {
	t.Parallel()
	h := newHub(newDev(t).store, nil)
	for range maxListeners {
		_, ok := h.listen(0)
		require.True(t, ok)
	}
	_, ok := h.listen(0)
	require.False(t, ok)
	h.close()
	h.close()
}
