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
	known     memory
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

// memory is what is kept of an agent's state: enough to say what a message changes.
type memory struct {
	capabilities uint64
	custom       []string
	// sums are hashes of the parts that messages carry or leave out; zero: never sent.
	sums       [5]sum
	config     string
	components string
}

type sum [16]byte

// parts are those of memory.sums, in their order.
var parts = [5]Parts{PartDescription, PartHealth, PartRemoteConfigStatus, PartPackageStatuses, PartConnectionSettingsStatus}

// merge lays a message over the memory. An absent part says nothing.
func (k *memory) merge(m *protobufs.AgentToServer) {
	// 0 is no value: ReportsStatus must be set (spec "AgentToServer.capabilities").
	if m.Capabilities != 0 {
		k.capabilities = m.Capabilities
	}
	remember(&k.sums[0], m.AgentDescription)
	remember(&k.sums[1], m.Health)
	remember(&k.sums[2], m.RemoteConfigStatus)
	remember(&k.sums[3], m.PackageStatuses)
	remember(&k.sums[4], m.ConnectionSettingsStatus)
	if m.CustomCapabilities != nil {
		k.custom = m.CustomCapabilities.Capabilities
	}
	if m.EffectiveConfig != nil {
		k.config = hashConfig(m.EffectiveConfig)
	}
	if m.AvailableComponents != nil {
		k.components = string(m.AvailableComponents.Hash)
	}
}

// since says what has changed.
func (k *memory) since(old *memory) Parts {
	var changed Parts
	note := func(differs bool, part Parts) {
		if differs {
			changed |= part
		}
	}
	for i, part := range parts {
		note(k.sums[i] != old.sums[i], part)
	}
	note(k.capabilities != old.capabilities, PartCapabilities)
	note(!slices.Equal(k.custom, old.custom), PartCustomCapabilities)
	note(k.config != old.config, PartEffectiveConfig)
	note(k.components != old.components, PartComponents)
	return changed
}

// state is what a message says, with what is known beside it.
func (k *memory) state(m *protobufs.AgentToServer) State {
	return State{
		Description: m.AgentDescription, Health: m.Health, RemoteConfigStatus: m.RemoteConfigStatus, PackageStatuses: m.PackageStatuses,
		ConnectionSettingsStatus: m.ConnectionSettingsStatus,
		Capabilities:             k.capabilities, CustomCapabilities: k.custom, EffectiveConfigHash: k.config, ComponentsHash: k.components,
	}
}

// message is a pointer to a part.
type message[T any] interface {
	*T
	proto.Message
}

// remember keeps the hash of a part that is there.
func remember[T any, M message[T]](into *sum, part M) {
	if part == nil {
		return
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(part)
	if err != nil { // it came in a message: its texts are valid
		return
	}
	whole := sha256.Sum256(append(encoded, 1)) // an empty part is one, too
	copy(into[:], whole[:])
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
	case a.transport == WebSocket && a.known.capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat) == 0:
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
