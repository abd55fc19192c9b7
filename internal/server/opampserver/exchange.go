package opampserver

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"
)

// source is where messages come from: a connection, or one request.
type source struct {
	principal Principal
	remote    string
	header    string // OpAMP-Instance-UID
	conn      *conn  // nil over HTTP
}

func (f *source) transport() Transport {
	if f.conn == nil {
		return HTTP
	}
	return WebSocket
}

// exchange takes one message and returns what answers it: the first is the answer, a command may follow. malformed says
// that nobody could read the message.
func (s *Server) exchange(ctx context.Context, from *source, data []byte) (answers []*protobufs.ServerToAgent, malformed bool) {
	s.counters.bytesIn.Add(int64(len(data)))
	m, uid, err := s.decode(data)
	if err != nil {
		s.counters.in[KindMalformed].Add(1)
		s.log.Debug("a message cannot be read", "principal", from.principal.Name, "remote", from.remote, "error", err)
		return one(badRequest(nil, err.Error())), true
	}
	s.counters.in[kindIn(m)].Add(1)
	if from.header != "" {
		if claimed, err := uuid.Parse(from.header); err != nil || claimed != uid {
			s.log.Warn("the header OpAMP-Instance-UID names another agent than the message", "instance_uid", uid, "remote", from.remote)
		}
	}
	if err := s.fleet.Admit(from.principal, uid); err != nil {
		return one(badRequest(uid[:], err.Error())), false
	}
	was := s.adopt(uid)
	a, refusal := s.claim(from, uid, m)
	if refusal != nil {
		return one(refusal), false
	}
	defer a.serial.Unlock()
	return s.take(ctx, a, from, m, was), false
}

// take handles the message of an agent whose serial lock is held.
func (s *Server) take(ctx context.Context, a *agent, from *source, m *protobufs.AgentToServer, was assignment) []*protobufs.ServerToAgent {
	r := &Report{
		UID: a.uid, At: time.Now(), Principal: from.principal, Transport: from.transport(), Remote: from.remote,
		CustomMessage: m.CustomMessage, Components: m.AvailableComponents, EffectiveConfig: m.EffectiveConfig, Leaving: m.AgentDisconnect != nil,
	}
	if was.duplicate {
		r.DuplicateOf = was.by
	} else {
		r.Previous = was.by
	}
	server := s.announced.Load().capabilities
	if server&uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsConnectionSettingsRequest) != 0 {
		r.CertificateRequest = m.GetConnectionSettingsRequest().GetOpamp().GetCertificateRequest()
	}
	a.mu.Lock()
	ask, separate := s.update(a, from, m, r)
	a.mu.Unlock()
	if separate {
		return one(s.separate(a, from))
	}
	reply := s.fleet.Report(ctx, r)
	answers := s.reply(a, from, m, reply, ask)
	if r.Leaving {
		s.offline(a, ReasonDisconnect)
	}
	return answers
}

// update lays the message over the agent's state. It says whether everything must be asked for, or whether the message is
// that of a second agent. The caller holds a.mu.
func (s *Server) update(a *agent, from *source, m *protobufs.AgentToServer, r *Report) (ask, separate bool) {
	r.New = !a.seen
	before := a.state
	sequence := a.track(m)
	if sequence == twoAgents {
		return false, true
	}
	r.Reconnected = !r.New && (!a.online || a.conn != from.conn)
	s.attach(a, from)
	switch {
	case sequence == inOrder:
		a.pace(r.At)
	case sequence == gap:
		if !r.New {
			s.counters.gaps.Add(1)
		}
		a.incomplete, ask = true, true
	default: // a new process: what the one before said does not hold any more
		a.state, a.incomplete = State{}, false
		if r.Reconnected || a.conn == nil {
			a.interval, a.polls = 0, 0
		}
	}
	r.Restarted = sequence == restarted
	if isFull(m) || a.incomplete && m.AgentDescription != nil && !ask {
		a.incomplete = false
		r.Introduced, a.introduced = !a.introduced, true
	}
	ask = ask || a.incomplete && r.At.Sub(a.asked) >= askAgain
	if ask {
		a.asked = r.At
	}
	a.heard = r.At
	a.state.merge(m)
	r.Changed = a.state.since(&before)
	if r.Changed.Has(PartConnectionSettingsStatus) && a.state.ConnectionSettingsStatus != nil {
		a.applied(a.state.ConnectionSettingsStatus)
	}
	r.State, r.Incomplete = a.state, a.incomplete
	return ask, false
}

// reply makes the answer from what the owner says.
func (s *Server) reply(a *agent, from *source, m *protobufs.AgentToServer, reply Reply, ask bool) []*protobufs.ServerToAgent {
	switch {
	case reply.BadRequest != "":
		return one(badRequest(a.uid[:], reply.BadRequest))
	case reply.Unavailable > 0:
		return one(unavailable(a.uid[:], reply.Unavailable))
	}
	a.mu.Lock()
	offer := a.collect(reply.Offer)
	offer.FullState = offer.FullState || ask
	if m.Flags&uint64(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid) != 0 && offer.NewUID == uuid.Nil {
		offer.NewUID = a.assigned
		if offer.NewUID == uuid.Nil {
			offer.NewUID = newUID()
		}
	}
	offer, err := offer.without(s.terms(a))
	answer := &protobufs.ServerToAgent{InstanceUid: a.uid[:]}
	s.introduce(a, answer)
	answers := one(answer)
	switch {
	case offer.onlyRestart():
		answer.Command = restart().Command
	case offer.Restart && from.conn == nil:
		a.waiting.Restart = true // a command is alone: with the next answer
	case offer.Restart:
		command := restart()
		command.InstanceUid = a.uid[:]
		answers = append(answers, command)
	}
	offer.into(answer)
	if int64(proto.Size(answer)) > s.opts.MaxMessage {
		err = errors.Join(err, ErrTooLarge)
		answers = one(&protobufs.ServerToAgent{InstanceUid: a.uid[:], Capabilities: answer.Capabilities})
	} else {
		s.assign(a, &offer)
		s.noteSent(a, &offer)
	}
	a.mu.Unlock()
	if err != nil {
		s.dropped(a.uid, err)
	}
	return answers
}

// introduce puts the server's capabilities into the first message to an agent on each connection, and over HTTP into every one. The
// caller holds a.mu.
func (s *Server) introduce(a *agent, m *protobufs.ServerToAgent) {
	now := s.announced.Load()
	a.telling = now.version
	if a.conn == nil || a.told != now.version {
		m.Capabilities = now.capabilities
		if len(now.custom) > 0 {
			m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: now.custom}
		}
	}
}

// noteSent notes what a message with this offer on its way changes. The caller holds a.mu.
func (s *Server) noteSent(a *agent, o *Offer) {
	a.told = a.telling
	a.expect(o.ConnectionSettings)
}

// assign notes the UID that an offer gives, before it is sent: the agent may use it before the sender gets any further. The caller
// holds a.mu.
func (s *Server) assign(a *agent, o *Offer) {
	if o.NewUID != uuid.Nil && o.NewUID != a.assigned {
		s.mu.Lock()
		delete(s.assigned, a.assigned)
		s.assigned[o.NewUID] = assignment{by: a.uid}
		s.mu.Unlock()
		a.assigned = o.NewUID
	}
}

func (s *Server) terms(a *agent) terms {
	now := s.announced.Load()
	return terms{agent: a.state.Capabilities, agentCustom: a.state.CustomCapabilities, server: now.capabilities, serverCustom: now.custom}
}

func (s *Server) dropped(uid uuid.UUID, err error) {
	s.counters.dropped.Add(1)
	s.fleet.Dropped(uid, err)
}

func one(m *protobufs.ServerToAgent) []*protobufs.ServerToAgent {
	return []*protobufs.ServerToAgent{m}
}

func newUID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

// badRequest has nothing beside the error (spec "ServerErrorResponse").
func badRequest(uid []byte, why string) *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{InstanceUid: uid, ErrorResponse: &protobufs.ServerErrorResponse{
		Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, ErrorMessage: why,
	}}
}

func unavailable(uid []byte, after time.Duration) *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{InstanceUid: uid, ErrorResponse: &protobufs.ServerErrorResponse{
		Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, ErrorMessage: "try again later",
		Details: &protobufs.ServerErrorResponse_RetryInfo{RetryInfo: &protobufs.RetryInfo{RetryAfterNanoseconds: uint64(after)}},
	}}
}
