package opampserver

import (
	"time"

	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/encoding/protowire"
)

// sweep looks for who is not there any more, until Shutdown.
func (s *Server) sweep() {
	every := min(s.opts.Heartbeat, s.opts.FirstMessage, s.opts.MessageTimeout, s.opts.Retain) / 4
	ticker := time.NewTicker(min(max(every, 5*time.Millisecond), time.Second))
	defer ticker.Stop()
	var agents []*agent
	var conns []*conn
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		agents, conns = agents[:0], conns[:0]
		for _, a := range s.agents {
			agents = append(agents, a)
		}
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		now := time.Now()
		for _, a := range agents {
			s.sweepAgent(a, now)
		}
		for _, c := range conns {
			c.sweep(now)
		}
		clear(agents)
		clear(conns)
	}
}

func (s *Server) sweepAgent(a *agent, now time.Time) {
	a.mu.Lock()
	overdue, c := a.overdue(now, s.opts.Heartbeat), a.conn
	expired := !a.online && !a.heard.IsZero() && now.Sub(a.heard) > s.opts.Retain
	a.mu.Unlock()
	if !overdue && !expired || !a.serial.TryLock() { // who has the lock has just heard of it
		return
	}
	defer a.serial.Unlock()
	a.mu.Lock()
	overdue = a.overdue(now, s.opts.Heartbeat)
	expired = expired && !a.online
	a.mu.Unlock()
	switch {
	case expired:
		s.remove(a, ReasonForgotten)
	case overdue:
		s.offline(a, ReasonSilent)
		if c != nil && c.empty() {
			c.fail(ReasonSilent, websocket.StatusPolicyViolation, "no heartbeat")
		}
	}
}

// sweep looks at one connection.
func (c *conn) sweep(now time.Time) {
	o := &c.srv.opts
	since := c.reading.Load()
	switch {
	case since != 0 && now.Sub(time.Unix(0, since)) > o.MessageTimeout:
		c.fail(ReasonProtocol, websocket.StatusPolicyViolation, "the message takes too long")
	case !c.valid.Load() && now.Sub(c.opened) > o.FirstMessage:
		c.fail(ReasonProtocol, websocket.StatusPolicyViolation, "no message")
	case now.Sub(c.heardAt()) > o.Heartbeat && since == 0 && !c.busy.Load():
		c.ping()
	}
}

// ping finds out whether anybody is there, if not too many are being asked.
func (c *conn) ping() {
	select {
	case c.srv.pings <- struct{}{}:
	default:
		return
	}
	if c.pinging.Swap(true) || !c.hold() {
		<-c.srv.pings
		return
	}
	go func() {
		defer c.srv.wg.Done()
		defer func() { <-c.srv.pings }()
		defer c.pinging.Store(false)
		if c.srv.alive(c) {
			c.heard.Store(time.Now().UnixNano())
		} else {
			c.fail(ReasonHalfOpen, statusNow, "")
		}
	}()
}

// hold counts a goroutine of the connection, while the reader still counts.
func (c *conn) hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.srv.wg.Add(1)
	}
	return !c.closed
}

func (c *conn) empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.agents) == 0
}

func kindIn(m *protobufs.AgentToServer) Kind {
	switch {
	case m.AgentDisconnect != nil:
		return KindDisconnect
	case isFull(m):
		return KindFull
	case m.CustomMessage != nil:
		return KindCustom
	case m.AgentDescription != nil, m.Health != nil, m.EffectiveConfig != nil, m.RemoteConfigStatus != nil, m.PackageStatuses != nil,
		m.CustomCapabilities != nil, m.AvailableComponents != nil, m.ConnectionSettingsStatus != nil, m.ConnectionSettingsRequest != nil:
		return KindStatus
	}
	return KindBare
}

// kindsOut are the kinds by field number of ServerToAgent; what is not in it is bare.
var kindsOut = [...]Kind{2: KindMalformed, 3: KindStatus, 4: KindStatus, 5: KindStatus, 6: KindStatus, 8: KindStatus, 9: KindCommand, 11: KindCustom}

// countOut counts a message that was written, by its highest field that says something.
func (s *Server) countOut(data []byte) {
	s.counters.bytesOut.Add(int64(len(data)))
	kind := KindBare
	for len(data) > 0 {
		number, _, n := protowire.ConsumeField(data)
		if n < 0 {
			break
		}
		if int(number) < len(kindsOut) && kindsOut[number] != 0 || number == 2 {
			kind = kindsOut[number]
		}
		data = data[n:]
	}
	s.counters.out[kind].Add(1)
}
