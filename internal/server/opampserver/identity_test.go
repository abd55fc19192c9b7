package opampserver

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

// reading keeps a peer answering pings; what it receives is given to the channel.
func (p *wsPeer) reading() <-chan *protobufs.ServerToAgent {
	out := make(chan *protobufs.ServerToAgent, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := p.tryRead(time.Hour)
			if err != nil {
				return
			}
			out <- m
		}
	}()
	p.Cleanup(func() { _ = p.ws.CloseNow(); <-done })
	return out
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	opts := Options{PingTimeout: 100 * time.Millisecond}
	t.Run("Duplicate instance_uid Detection/the second of two live agents gets a new UID", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		first, second := g.dial(), g.dial()
		first.say(full(uid, 5))
		answers := first.reading()
		m := second.say(full(uid, 0))
		require.Equal(t, uid[:], m.InstanceUid)
		given := uuid.UUID(m.AgentIdentification.NewInstanceUid)
		require.EqualValues(t, 7, given.Version())
		require.NotZero(t, m.Capabilities)
		require.Equal(t, given[:], second.say(full(uid, 1)).AgentIdentification.NewInstanceUid, "the same until it is used")
		require.Nil(t, second.say(full(given, 2)).AgentIdentification)
		require.Equal(t, uid, g.fleet.last().DuplicateOf)
		require.Zero(t, g.fleet.last().Previous)
		first.send(beat(uid, 6))
		require.Zero(t, (<-answers).Flags, "the first goes on")
		require.Empty(t, g.fleet.departures())
		require.EqualValues(t, 1, g.Metrics().Duplicates)
	})
	t.Run("Duplicate WebSocket Connections/an agent whose old connection is half-open takes over", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		old := g.dial()
		old.say(full(uid, 5)) // and reads no more: no pong
		again := g.dial()
		m := again.say(full(uid, 0))
		require.Nil(t, m.AgentIdentification)
		require.Zero(t, m.Flags)
		require.True(t, g.fleet.last().Reconnected)
		require.NoError(t, g.Push(uid, &Offer{RemoteConfig: config()}))
		require.NotNil(t, again.read().RemoteConfig)
		require.Eventually(t, func() bool { return g.Metrics().Connections == 1 }, limit, time.Millisecond)
		require.Empty(t, g.fleet.departures(), "it was never away")
	})
	t.Run("Restoring WebSocket Connection/the next message in order proves the same agent", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		old := g.dial()
		old.say(full(uid, 5))
		old.reading()
		m := g.dial().say(beat(uid, 6))
		require.Nil(t, m.AgentIdentification)
		require.Zero(t, m.Flags)
		require.NotZero(t, m.Capabilities, "the first answer of the connection")
	})
	t.Run("Restoring WebSocket Connection/a reconnect may be compressed", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		old := g.dial()
		old.say(full(uid, 5))
		_ = old.ws.CloseNow()
		g.awaitGone(uid, ReasonLost)
		require.Zero(t, g.dial().say(beat(uid, 6)).Flags)
		require.True(t, g.fleet.last().Reconnected)
		require.Equal(t, "ok", g.fleet.last().State.Health.Status)
	})
	t.Run("Duplicate WebSocket Connections/an agent behind a gateway moves", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		one, two := g.dial(), g.dial()
		one.say(full(newUID(), 0))
		one.say(full(uid, 5))
		one.reading()
		require.Nil(t, two.say(full(uid, 0)).AgentIdentification)
		require.NoError(t, g.Push(uid, &Offer{RemoteConfig: config()}))
		require.Equal(t, uid[:], two.read().InstanceUid)
	})
	t.Run("Duplicate instance_uid Detection/two agents over HTTP alternate", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		p := httpPeer{g}
		var given []byte
		for i := uint64(0); given == nil && i < 10; i++ {
			for _, seq := range []uint64{i, 100 + i} {
				if m := p.say(full(uid, seq)); m.AgentIdentification != nil {
					given = m.AgentIdentification.NewInstanceUid // either of the two
				}
			}
		}
		require.NotNil(t, given)
		require.Zero(t, p.say(full(uuid.UUID(given), 200)).Flags)
		require.Equal(t, uid, g.fleet.last().DuplicateOf)
	})
	t.Run("Duplicate instance_uid Detection/over HTTP beside a live connection", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, opts), newUID()
		ws := g.dial()
		ws.say(full(uid, 5))
		ws.reading()
		require.NotNil(t, httpPeer{g}.say(full(uid, 0)).AgentIdentification)
		require.EqualValues(t, 1, g.Metrics().Connections)
	})
}

func TestLiveness(t *testing.T) {
	t.Parallel()
	t.Run("Plain HTTP Transport/three polls missed", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, Options{Heartbeat: 20 * time.Millisecond}), newUID()
		p := httpPeer{g}
		p.say(full(uid, 0))
		require.NoError(t, g.Push(uid, &Offer{RemoteConfig: config()}))
		g.awaitGone(uid, ReasonSilent)
		require.ErrorIs(t, g.fleet.drops()[0], ErrOffline, "what waited for the next poll")
		time.Sleep(30 * time.Millisecond) // as long as its interval is, it is learned
		p.say(beat(uid, 1))
		require.True(t, g.fleet.last().Reconnected)
		a := g.find(uid)
		a.mu.Lock()
		defer a.mu.Unlock()
		require.Greater(t, a.polls, 60*time.Millisecond)
	})
	t.Run("WebSocket Transport/an offered interval is kept", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, Options{Heartbeat: 50 * time.Millisecond, Capabilities: everything}), newUID()
		p := g.dial()
		p.say(full(uid, 0))
		require.NoError(t, g.Push(uid, &Offer{ConnectionSettings: settings(1)}))
		require.NotNil(t, p.read().ConnectionSettings)
		p.say(with(beat(uid, 1), func(m *protobufs.AgentToServer) {
			m.ConnectionSettingsStatus = &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: []byte("hash"), Status: protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED}
		}))
		start := time.Now()
		p.reading() // pongs alone are no heartbeats
		g.awaitGone(uid, ReasonSilent)
		require.Greater(t, time.Since(start), 2900*time.Millisecond)
		require.Eventually(t, func() bool { return g.Metrics().Connections == 0 }, limit, time.Millisecond)
	})
	t.Run("WebSocket Transport/an interval that was not offered is not assumed", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, Options{Heartbeat: 10 * time.Millisecond}), newUID()
		p := g.dial()
		p.say(full(uid, 0))
		p.reading()
		time.Sleep(200 * time.Millisecond) // twenty intervals
		require.Empty(t, g.fleet.departures())
	})
	t.Run("WebSocket Transport/a half-open connection", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, Options{Heartbeat: 20 * time.Millisecond, PingTimeout: 50 * time.Millisecond}), newUID()
		g.dial().say(full(uid, 0)) // reads no more
		g.awaitGone(uid, ReasonHalfOpen)
	})
	t.Run("Agent Status Compression/what is gone is forgotten at last", func(t *testing.T) {
		t.Parallel()
		g, uid := newRig(t, Options{Retain: 50 * time.Millisecond}), newUID()
		p := g.dial()
		p.say(full(uid, 0))
		_ = p.ws.CloseNow()
		g.awaitGone(uid, ReasonLost)
		require.Eventually(t, func() bool { return g.Metrics().Agents == 0 }, limit, time.Millisecond)
	})
}

func TestSlowReaderHoldsUpNobody(t *testing.T) {
	t.Parallel()
	g, slow, other := newRig(t, Options{WriteTimeout: 300 * time.Millisecond}), newUID(), newUID()
	p, q := g.dial(), g.dial()
	p.say(full(slow, 0)) // and reads no more
	q.say(full(other, 0))
	big := config()
	big.Config.ConfigMap = map[string]*protobufs.AgentConfigFile{"": {Body: incompressible(12 << 20).ConfigMap.ConfigMap[""].Body}}
	var err error
	for range 10 {
		start := time.Now()
		err = g.Push(slow, &Offer{RemoteConfig: big})
		require.Less(t, time.Since(start), 5*time.Second, "Push does not wait for the agent")
		if err != nil {
			break
		}
	}
	require.Error(t, err)
	require.NoError(t, g.Push(other, &Offer{RemoteConfig: config()}))
	require.NotNil(t, q.read().RemoteConfig)
	// Kernels buffer tens of megabytes: more is pushed until nothing goes any more.
	require.Eventually(t, func() bool {
		_ = g.Push(slow, &Offer{RemoteConfig: big})
		return slices.Contains(g.fleet.departures(), departure{slow, ReasonSlow})
	}, limit, 10*time.Millisecond)
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	t.Run("Closing Connection/Close frames over the window", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, Options{Drain: 300 * time.Millisecond})
		closed := make(chan time.Time, 30)
		for range cap(closed) {
			p := g.dial()
			p.say(full(newUID(), 0))
			go func() {
				_, err := p.tryRead(limit)
				if websocket.CloseStatus(err) == websocket.StatusGoingAway {
					closed <- time.Now()
				}
			}()
		}
		httpPeer{g}.say(full(newUID(), 0))
		require.NoError(t, g.Shutdown(context.Background()))
		var first, last time.Time
		for range cap(closed) {
			at := <-closed
			if first.IsZero() {
				first = at
			}
			last = at
		}
		require.Greater(t, last.Sub(first), 100*time.Millisecond)
		require.Len(t, g.fleet.departures(), 31)
		require.NoError(t, g.Shutdown(context.Background()), "twice")
		resp, _ := httpPeer{g}.post(frameOf(t, full(newUID(), 0))[1:])
		require.Equal(t, 503, resp.StatusCode)
		_, resp, err := websocket.Dial(context.Background(), g.http.URL, nil)
		require.Error(t, err)
		require.Equal(t, 503, resp.StatusCode)
	})
	t.Run("Closing Connection/who does not answer is cut off", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, Options{})
		g.dial().say(full(newUID(), 0)) // reads no more
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, g.Shutdown(ctx), context.DeadlineExceeded)
		require.Less(t, time.Since(start), 2*time.Second)
	})
	t.Run("without a start", func(t *testing.T) {
		t.Parallel()
		require.NoError(t, newRig(t, Options{}).Shutdown(context.Background()))
	})
}
