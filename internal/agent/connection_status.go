package agent

import (
	"bytes"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// An offer of connection settings has one hash and one status, and two takers: the session, for its own connection, and
// whoever configures own telemetry and exporters.
type taker int

const (
	takerSession taker = iota
	takerOthers
	takers
)

// connectionStatus makes one status of what the takers say.
type connectionStatus struct {
	hash     []byte       // of the newest offer that this process has seen
	involved [takers]bool // whom it is for
	statuses [takers]*protobufs.ConnectionSettingsStatus
}

// combined is the worst that is said about the newest offer; whoever has not said anything about it yet is at work.
func (c *connectionStatus) combined() *protobufs.ConnectionSettingsStatus {
	worst := &protobufs.ConnectionSettingsStatus{}
	if c.hash == nil { // from before this process
		for _, s := range c.statuses {
			worst = worseOf(worst, s)
		}
		return worst
	}
	for t, yes := range c.involved {
		if !yes {
			continue
		}
		s := c.statuses[t]
		if !bytes.Equal(s.GetLastConnectionSettingsHash(), c.hash) {
			s = &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: c.hash, Status: protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLYING}
		}
		worst = worseOf(worst, s)
	}
	return worst
}

// badness orders statuses.
var badness = map[protobufs.ConnectionSettingsStatuses]int{
	protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED:  1,
	protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLYING: 2,
	protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED:   3,
}

func worseOf(a, b *protobufs.ConnectionSettingsStatus) *protobufs.ConnectionSettingsStatus {
	if badness[b.GetStatus()] > badness[a.GetStatus()] {
		return b
	}
	return a
}

// setConnectionStatus replaces what a taker says; with wake it is sent at once, else with the next message.
func (r *report) setConnectionStatus(t taker, status *protobufs.ConnectionSettingsStatus, wake bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connection.statuses[t] = status
	switch {
	case !r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus):
	case wake:
		r.changed(partConnectionStatus)
	default:
		r.along |= partConnectionStatus
	}
}

// connectionStatusOf is what a taker has said.
func (r *report) connectionStatusOf(t taker) *protobufs.ConnectionSettingsStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.connection.statuses[t]
}

// offered notes what the newest offer is about.
func (r *report) offered(hash []byte, involved [takers]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connection.hash, r.connection.involved = hash, involved
}

// OnConnectionSettings says who takes settings for own telemetry and for other connections. The function must not block.
func (s *Session) OnConnectionSettings(take func(hash []byte, settings *protobufs.ConnectionSettingsOffers)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections = take
}

// SetConnectionSettingsStatus is what has become of them: see SetDescription.
func (s *Session) SetConnectionSettingsStatus(status *protobufs.ConnectionSettingsStatus) {
	same := proto.Equal(status, s.report.connectionStatusOf(takerOthers))
	s.report.setConnectionStatus(takerOthers, status, !same)
}

// receiveConnectionSettings hands each taker its part of an offer; parts that the agent does not accept are ignored.
func (s *Session) receiveConnectionSettings(m *protobufs.ConnectionSettingsOffers) {
	if len(m.Hash) > maxHash {
		s.logger().Warn("Ignored an offer of connection settings with a hash that is too long.", zap.Int("bytes", len(m.Hash)))
		return
	}
	can := func(c protobufs.AgentCapabilities) bool { return s.report.announced()&c != 0 }
	others := &protobufs.ConnectionSettingsOffers{}
	if can(protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnMetrics) {
		others.OwnMetrics = m.OwnMetrics
	}
	if can(protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnTraces) {
		others.OwnTraces = m.OwnTraces
	}
	if can(protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnLogs) {
		others.OwnLogs = m.OwnLogs
	}
	if can(protobufs.AgentCapabilities_AgentCapabilities_AcceptsOtherConnectionSettings) {
		others.OtherConnections = m.OtherConnections
	}
	involved := [takers]bool{
		takerSession: m.Opamp != nil && can(protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings),
		takerOthers:  proto.Size(others) > 0,
	}
	if involved == [takers]bool{} {
		return
	}
	s.report.offered(hashOf(m), involved)
	if involved[takerOthers] {
		s.mu.Lock()
		take := s.connections
		s.mu.Unlock()
		take(hashOf(m), others)
	}
	if involved[takerSession] {
		s.receiveOffer(m, time.Now())
	}
}
