package opampserver

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"
)

const (
	// missed intervals make an agent gone.
	missed = 3
	// longestInterval is the longest silence that is taken for an agent's own interval.
	longestInterval = time.Hour
	// alternations of two sequences under one UID prove two agents.
	alternations = 3
	// askAgain is how long a full report may take to come before it is asked for again.
	askAgain = 10 * time.Second
	// waitingCustom bounds the custom messages that wait for an agent's next poll.
	waitingCustom = 16
)

// agent is what is remembered of one instance UID.
type agent struct {
	uid uuid.UUID

	// serial is held while one message is handled, and around Gone: it makes Fleet's calls serial. Taken before mu.
	serial sync.Mutex

	mu        sync.Mutex // guards all below
	state     State
	conn      *conn // over which it is connected; nil over HTTP
	online    bool
	transport Transport
	removed   bool   // not in Server.agents any more
	told      uint32 // version of the server's capabilities it was told; 0: none on this connection
	telling   uint32 // version in the message that is being made
	heard     time.Time
	interval  time.Duration // between messages, as offered by this server; 0: none
	polls     time.Duration // between polls, as seen
	offered   time.Duration // interval of the offer with offerHash, counted once that is APPLIED
	offerHash string

	seq        uint64
	seen       bool // seq is set
	other      uint64
	otherSeen  bool // other is the sequence before the last gap
	swaps      int
	incomplete bool
	introduced bool // a full report came
	asked      time.Time

	assigned uuid.UUID // UID it was given and has not used yet
	waiting  Offer     // over HTTP: until the next poll
	custom   []*protobufs.CustomMessage

	duplicate uuid.UUID // given to whoever else speaks under this UID over HTTP; guarded by Server.mu
}

// order is what a sequence number says.
type order int

const (
	inOrder order = iota
	restarted
	gap
	twoAgents
)

// otherReports are the capabilities that put more than the description into a full report.
const otherReports = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus)

// isFull says whether a message is a full report, and not one of a description that has changed.
func isFull(m *protobufs.AgentToServer) bool {
	return m.AgentDescription != nil && (m.Capabilities&otherReports == 0 || m.Health != nil || m.EffectiveConfig != nil ||
		m.RemoteConfigStatus != nil || m.PackageStatuses != nil || m.AvailableComponents != nil || m.ConnectionSettingsStatus != nil)
}

// follows says whether m is the message after the last one.
func (a *agent) follows(m *protobufs.AgentToServer) bool { return a.seen && m.SequenceNum == a.seq+1 }

// track notes the sequence number (spec "Agent Status Compression"). The caller holds a.mu.
func (a *agent) track(m *protobufs.AgentToServer) order {
	n := m.SequenceNum
	switch {
	case a.follows(m):
		a.seq = n
		return inOrder
	case a.otherSeen && n == a.other+1:
		a.swaps++
		if a.swaps >= alternations {
			a.other = n // a.seq stays that of the first
			return twoAgents
		}
	default:
		a.swaps = 0
	}
	a.other, a.otherSeen = a.seq, a.seen
	a.seq, a.seen = n, true
	if isFull(m) {
		return restarted
	}
	return gap
}

// merge lays a message over the state. An absent part says nothing.
func (s *State) merge(m *protobufs.AgentToServer) {
	// 0 is no value: ReportsStatus must be set (spec "AgentToServer.capabilities").
	if m.Capabilities != 0 {
		s.Capabilities = m.Capabilities
	}
	assign(&s.Description, m.AgentDescription)
	assign(&s.Health, m.Health)
	assign(&s.RemoteConfigStatus, m.RemoteConfigStatus)
	assign(&s.PackageStatuses, m.PackageStatuses)
	assign(&s.ConnectionSettingsStatus, m.ConnectionSettingsStatus)
	if m.CustomCapabilities != nil {
		s.CustomCapabilities = m.CustomCapabilities.Capabilities
	}
	if m.EffectiveConfig != nil {
		s.EffectiveConfigHash = hashConfig(m.EffectiveConfig)
	}
	if m.AvailableComponents != nil {
		s.ComponentsHash = string(m.AvailableComponents.Hash)
	}
}

// since says what has changed, and keeps the old message where nothing has: the owner may have it too.
func (s *State) since(old *State) Parts {
	changed := replaced(&s.Description, old.Description, PartDescription) | replaced(&s.Health, old.Health, PartHealth) |
		replaced(&s.RemoteConfigStatus, old.RemoteConfigStatus, PartRemoteConfigStatus) |
		replaced(&s.PackageStatuses, old.PackageStatuses, PartPackageStatuses) |
		replaced(&s.ConnectionSettingsStatus, old.ConnectionSettingsStatus, PartConnectionSettingsStatus)
	for _, part := range [...]struct {
		differs bool
		part    Parts
	}{
		{s.Capabilities != old.Capabilities, PartCapabilities},
		{!slices.Equal(s.CustomCapabilities, old.CustomCapabilities), PartCustomCapabilities},
		{s.EffectiveConfigHash != old.EffectiveConfigHash, PartEffectiveConfig},
		{s.ComponentsHash != old.ComponentsHash, PartComponents},
	} {
		if part.differs {
			changed |= part.part
		}
	}
	return changed
}

// message is a pointer to a part.
type message[T any] interface {
	*T
	proto.Message
}

func assign[T any, M message[T]](into *M, from M) {
	if from != nil {
		*into = from
	}
}

func replaced[T any, M message[T]](now *M, old M, part Parts) Parts {
	switch {
	case *now == old:
		return 0
	case *now != nil && old != nil && proto.Equal(*now, old):
		*now = old
		return 0
	}
	return part
}

// hashConfig is the same for the same files, in whatever order they came.
func hashConfig(c *protobufs.EffectiveConfig) string {
	h := sha256.New()
	write := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	files := c.GetConfigMap().GetConfigMap()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		write([]byte(name))
		write([]byte(files[name].GetContentType()))
		write(files[name].GetBody())
	}
	return string(h.Sum(nil))
}

// expect notes the interval of an offer: until it is applied, the longer of the two is waited for. The caller holds a.mu.
func (a *agent) expect(c *protobufs.ConnectionSettingsOffers) {
	if c == nil || c.Opamp == nil || a.transport == HTTP && c.Opamp.HeartbeatIntervalSeconds == 0 {
		return
	}
	a.offered = time.Duration(min(c.Opamp.HeartbeatIntervalSeconds, uint64(24*time.Hour/time.Second))) * time.Second
	a.offerHash = string(c.Hash)
	switch {
	case a.offered == 0:
		a.interval = 0
	case a.interval > 0:
		a.interval = max(a.interval, a.offered)
	}
}

func (a *agent) applied(status *protobufs.ConnectionSettingsStatus) {
	if a.offerHash != "" && string(status.LastConnectionSettingsHash) == a.offerHash &&
		status.Status == protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED {
		a.interval, a.offerHash = a.offered, ""
	}
}

// overdue says whether an agent that should have said something did not. An interval that this server did not offer is not assumed
// over WebSocket, where pings find the dead; over HTTP there is nothing else, and the agent's own pace is learned. The caller holds a.mu.
func (a *agent) overdue(now time.Time, polling time.Duration) bool {
	interval := a.interval
	switch {
	case !a.online:
		return false
	case a.transport == HTTP && interval == 0:
		interval = max(polling, a.polls)
	case a.transport == WebSocket && !a.state.Can(protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat):
		return false
	}
	return interval > 0 && now.Sub(a.heard) > missed*interval
}

// pace learns how often an agent polls: the longest silence between two messages in order, fading. The caller holds a.mu.
func (a *agent) pace(now time.Time) {
	a.polls = max(min(now.Sub(a.heard), longestInterval), a.polls*3/4)
}

// wait keeps an offer for the next poll. The caller holds a.mu.
func (a *agent) wait(o Offer) error {
	if o.CustomMessage != nil {
		if len(a.custom) >= waitingCustom {
			return ErrBusy
		}
		a.custom = append(a.custom, o.CustomMessage)
		o.CustomMessage = nil
	}
	a.waiting = o.over(a.waiting)
	return nil
}

// collect takes what waits, with the reply's offer over it. The caller holds a.mu.
func (a *agent) collect(reply *Offer) Offer {
	out := a.waiting
	a.waiting = Offer{}
	if reply != nil {
		out = reply.over(out)
	}
	if out.CustomMessage == nil && len(a.custom) > 0 {
		out.CustomMessage, a.custom = a.custom[0], a.custom[1:]
	}
	return out
}
