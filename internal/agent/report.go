package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"
)

// part is a part of the status that is left out of a message when the server has it (spec "Agent Status Compression").
type part uint

const (
	partDescription part = 1 << iota
	partHealth
	partEffectiveConfig
	partComponents
	partComponentDetails // beside partComponents: the components themselves, not only their hash
	partCustomCapabilities
	partRemoteConfigStatus
	partPackageStatuses
	partCapabilities // in every message anyhow: a change of them is reason enough to send one
	partConnectionStatus
	partConnectionRequest // sent once, never as part of a full report

	// allParts is what a full report has; details of components are sent on request only.
	allParts = partDescription | partHealth | partEffectiveConfig | partComponents | partCustomCapabilities | partRemoteConfigStatus | partPackageStatuses | partConnectionStatus
)

// fullReportEvery is how often a server gets a full report at most, however often it asks.
const fullReportEvery = time.Second

// report is what the agent has to tell, and which parts of it the server still lacks. Setters never block and may be
// called from anywhere; next is called by the session's loop.
type report struct {
	mu   sync.Mutex    // guards all below
	wake chan struct{} // capacity 1: something is to be sent

	description  *protobufs.AgentDescription
	health       *protobufs.ComponentHealth
	effective    *protobufs.EffectiveConfig
	components   *protobufs.AvailableComponents
	remoteConfig *protobufs.RemoteConfigStatus
	packages     *protobufs.PackageStatuses
	custom       []string // custom capabilities
	connection   connectionStatus
	request      *protobufs.ConnectionSettingsRequest
	capabilities protobufs.AgentCapabilities
	server       protobufs.ServerCapabilities // 0: not known, everything is accepted

	lacking  part // parts that the server lacks
	along    part // parts that go with the next message, but are no reason to send one
	messages []*customSend
	lastFull time.Time
	// lastDetails is when the components themselves were last sent: a server that always asks is not always answered.
	lastDetails time.Time
}

func newReport() *report {
	return &report{wake: make(chan struct{}, 1)}
}

// changed marks parts as lacking and wakes the loop. The caller holds mu.
func (r *report) changed(p part) {
	r.lacking |= p
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lack marks parts as lacking: nothing that was sent counts as known any more.
func (r *report) lack(p part) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed(p)
}

// forget is for a new connection: everything is sent again, and what the last server could do means nothing.
func (r *report) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server, r.lastFull, r.lastDetails, r.request = 0, time.Time{}, time.Time{}, nil
	r.changed(allParts)
}

// set replaces a part when it differs.
func set[M proto.Message](r *report, p part, field *M, value M) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !proto.Equal(*field, value) {
		*field = value
		r.changed(p)
	}
}

func (r *report) setCustomCapabilities(names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.custom, names) {
		r.custom = names
		r.changed(partCustomCapabilities)
	}
}

func (r *report) setCapabilities(c protobufs.AgentCapabilities) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.capabilities == c {
		return
	}
	gained := c &^ r.capabilities
	r.capabilities = c
	r.changed(partCapabilities)
	for capability, p := range gated {
		if gained&capability != 0 {
			r.changed(p) // left out until now
		}
	}
}

// gated are the parts that are sent only by an agent that says it does.
var gated = map[protobufs.AgentCapabilities]part{
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth:                   partHealth,
	protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig:          partEffectiveConfig,
	protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents:      partComponents,
	protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus: partConnectionStatus,
	protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig:             partRemoteConfigStatus,
	protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses:          partPackageStatuses,
}

func (r *report) setServerCapabilities(c protobufs.ServerCapabilities) {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused := !r.serverTakesConfig()
	r.server = c
	if refused && r.serverTakesConfig() {
		r.changed(partEffectiveConfig)
	}
}

// outgoing is a message to send, and what to put back when it did not get through.
type outgoing struct {
	message *protobufs.AgentToServer
	parts   part
	custom  *customSend
}

// next takes what is to be sent. Without force and with nothing to send it returns nil. A full report that the server has
// asked for again too soon is put off: later says until when, 0 means that nothing is put off.
func (r *report) next(now time.Time, force bool) (*outgoing, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	parts, later := r.due(now)
	if parts == 0 && len(r.messages) == 0 && !force {
		return nil, later
	}
	r.lacking &^= parts
	parts, r.along = parts|r.along, 0
	out := &outgoing{message: &protobufs.AgentToServer{Capabilities: uint64(r.capabilities)}, parts: parts}
	r.fill(out.message, parts)
	if len(r.messages) > 0 {
		out.custom = r.messages[0]
		r.messages = r.messages[1:]
		out.message.CustomMessage = out.custom.message
	}
	if len(r.messages) > 0 {
		r.changed(0)
	}
	return out, later
}

// due says which of the lacking parts go out now, and when to look again at what is put off. The caller holds mu.
func (r *report) due(now time.Time) (parts part, later time.Duration) {
	full := r.lacking&allParts == allParts
	if wait := fullReportEvery - now.Sub(r.lastFull); full && wait > 0 {
		return 0, wait
	}
	parts = r.lacking
	if full {
		r.lastFull = now
	}
	if parts&partComponentDetails == 0 {
		return parts, 0
	}
	if wait := fullReportEvery - now.Sub(r.lastDetails); wait > 0 {
		parts &^= partComponentDetails
		if !full {
			parts &^= partComponents
		}
		return parts, wait
	}
	r.lastDetails = now
	return parts, 0
}

func (r *report) fill(m *protobufs.AgentToServer, parts part) {
	if parts&partDescription != 0 {
		m.AgentDescription = r.description
	}
	if parts&partHealth != 0 && r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth) {
		m.Health = r.health
	}
	if parts&partEffectiveConfig != 0 && r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig) && r.serverTakesConfig() {
		m.EffectiveConfig = r.effective
	}
	if parts&(partComponents|partComponentDetails) != 0 && r.components != nil && r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents) {
		m.AvailableComponents = &protobufs.AvailableComponents{Hash: r.components.Hash}
		if parts&partComponentDetails != 0 {
			m.AvailableComponents = r.components
		}
	}
	if parts&partConnectionStatus != 0 && r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus) {
		m.ConnectionSettingsStatus = r.connection.combined()
	}
	if parts&partConnectionRequest != 0 {
		m.ConnectionSettingsRequest = r.request
	}
	if parts&partRemoteConfigStatus != 0 && r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig) {
		m.RemoteConfigStatus = r.remoteConfig
	}
	if parts&partPackageStatuses != 0 && r.can(protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses) {
		m.PackageStatuses = r.packages
	}
	// Sent when empty, too: an absent field never clears what the server has.
	if parts&partCustomCapabilities != 0 {
		m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: r.custom}
	}
}

func (r *report) can(c protobufs.AgentCapabilities) bool { return r.capabilities&c != 0 }

// serverTakesConfig: what a server lacks the agent must stop using (spec "Interoperability of Partial Implementations").
func (r *report) serverTakesConfig() bool {
	return r.server == 0 || r.server&protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig != 0
}

// putBack returns what did not get through.
func (r *report) putBack(out *outgoing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lacking |= out.parts
	if out.parts&allParts == allParts {
		r.lastFull = time.Time{}
	}
	if out.parts&partComponentDetails != 0 {
		r.lastDetails = time.Time{}
	}
	if out.custom != nil {
		r.messages = append([]*customSend{out.custom}, r.messages...)
	}
}

func (r *report) announced() protobufs.AgentCapabilities {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.capabilities
}
