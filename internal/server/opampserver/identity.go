package opampserver

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
)

// proof is how long one answered ping proves that a connection is alive.
const proof = 2 * time.Second

// claim finds or makes what is remembered of uid, and returns it with its serial lock held; or the answer that refuses.
//
// A message that comes another way than the connection on which its agent lives is one of three: the agent itself, whose old
// connection is half-open; the agent itself, moved by a gateway; another agent with the same UID. DESIGN.md has the rules.
func (s *Server) claim(from *source, uid uuid.UUID, m *protobufs.AgentToServer) (*agent, *protobufs.ServerToAgent) {
	for {
		a, refusal := s.remember(from, uid)
		if refusal != nil {
			return nil, refusal
		}
		if old := a.rival(from.conn, m); old != nil {
			if s.alive(old) {
				return nil, s.separate(a, from)
			}
			old.fail(ReasonHalfOpen, statusNow, "")
		}
		a.serial.Lock()
		a.mu.Lock()
		removed := a.removed
		a.mu.Unlock()
		if !removed && a.rival(from.conn, m) == nil {
			return a, nil
		}
		a.serial.Unlock() // another one was faster
	}
}

// remember finds or makes the record of uid, within the limits.
func (s *Server) remember(from *source, uid uuid.UUID) (*agent, *protobufs.ServerToAgent) {
	if from.conn != nil && !from.conn.hasRoom(s.find(uid)) {
		return nil, badRequest(uid[:], "too many agents on one connection")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[uid]
	if a != nil {
		return a, nil
	}
	if len(s.agents) >= s.opts.MaxAgents {
		return nil, unavailable(uid[:], s.retryAfter())
	}
	a = &agent{uid: uid}
	s.agents[uid] = a
	return a, nil
}

// rival is the live connection that m must displace, if it cannot have come over it: nil when m continues the agent's sequence,
// or when other agents use that connection too, so that a ping would say nothing of this one.
func (a *agent) rival(c *conn, m *protobufs.AgentToServer) *conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.online || a.conn == nil || a.conn == c || a.follows(m) && !isFull(m) || !a.conn.alone() {
		return nil
	}
	return a.conn
}

// alive says whether a connection answers a ping. A reader that is at work, or has read since, counts as an answer.
func (s *Server) alive(c *conn) bool {
	start := time.Now()
	if proven := c.proven.Load(); proven != 0 && start.Sub(time.Unix(0, proven)) < proof {
		return true
	}
	limit, cancel := context.WithTimeout(context.Background(), s.opts.PingTimeout)
	defer cancel()
	answered := c.ws.Ping(limit) == nil || c.busy.Load() || c.heardAt().After(start)
	if answered {
		c.proven.Store(time.Now().UnixNano())
	}
	return answered
}

// separate gives the second agent under one UID another one, always the same until it is used.
func (s *Server) separate(a *agent, from *source) *protobufs.ServerToAgent {
	uid := &a.duplicate // guarded by s.mu here
	if from.conn != nil {
		uid = &from.conn.given
	}
	s.mu.Lock()
	if was, waiting := s.assigned[*uid]; !waiting || was.by != a.uid {
		if from.conn != nil {
			delete(s.assigned, *uid)
		}
		*uid = newUID()
		s.assigned[*uid] = assignment{by: a.uid, duplicate: true}
		s.counters.duplicates.Add(1)
		s.log.Warn("two agents have the same instance_uid: the second gets another one", "instance_uid", a.uid, "new_instance_uid", *uid,
			"principal", from.principal.Name, "remote", from.remote)
	}
	given := *uid
	s.mu.Unlock()
	now := s.announced.Load()
	return &protobufs.ServerToAgent{
		InstanceUid: a.uid[:], Capabilities: now.capabilities,
		AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: given[:]},
	}
}

// adopt ends the UID that the agent had before it was given this one.
func (s *Server) adopt(uid uuid.UUID) assignment {
	s.mu.Lock()
	was, given := s.assigned[uid]
	delete(s.assigned, uid)
	old := s.agents[was.by]
	s.mu.Unlock()
	if given && !was.duplicate && old != nil {
		old.serial.Lock()
		s.remove(old, ReasonRenamed)
		old.serial.Unlock()
	}
	return was
}

// attach makes the source of a message the agent's way. The caller holds a.serial and a.mu.
func (s *Server) attach(a *agent, from *source) {
	if a.online && a.conn == from.conn {
		return
	}
	if a.conn != nil {
		a.conn.detach(a)
	}
	a.conn, a.online, a.told, a.transport = from.conn, true, 0, from.transport()
	if from.conn != nil {
		from.conn.attach(a)
	}
}

// offline ends an agent's presence, once. The caller holds a.serial.
func (s *Server) offline(a *agent, reason Reason) {
	a.mu.Lock()
	if !a.online {
		a.mu.Unlock()
		return
	}
	if a.conn != nil {
		a.conn.detach(a)
	}
	lost := len(a.custom)
	if a.waiting != (Offer{}) {
		lost++
	}
	a.online, a.conn, a.told, a.waiting, a.custom = false, nil, 0, Offer{}, nil
	a.mu.Unlock()
	for range lost {
		s.dropped(a.uid, ErrOffline)
	}
	s.counters.gone.Add(1)
	s.log.Debug("an agent is gone", "instance_uid", a.uid, "reason", reason)
	s.fleet.Gone(a.uid, reason)
}

// remove forgets an agent. The caller holds a.serial.
func (s *Server) remove(a *agent, reason Reason) {
	a.mu.Lock()
	a.removed = true
	assigned := a.assigned
	a.mu.Unlock()
	s.mu.Lock()
	if s.agents[a.uid] == a {
		delete(s.agents, a.uid)
	}
	delete(s.assigned, assigned)
	delete(s.assigned, a.duplicate)
	s.mu.Unlock()
	s.offline(a, reason)
}
