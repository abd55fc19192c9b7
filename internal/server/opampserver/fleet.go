package opampserver

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
)

// Fleet is the owner: it decides, the Server speaks. Report and Gone of one agent never overlap; those of different agents do.
// A Report that takes its time holds up its own connection and no other. Push may be called from all of them.
type Fleet interface {
	// Authenticate looks at an upgrade or a POST. A *StatusError says how to refuse; any other error is a 401.
	Authenticate(r *http.Request) (Principal, error)
	// Admit says whether this principal may speak for uid; asked before anything is remembered. An error is a BAD_REQUEST.
	Admit(p Principal, uid uuid.UUID) error
	// Report takes one message of an agent and says what goes along with the answer. The messages in it must not be changed.
	Report(ctx context.Context, r *Report) Reply
	// Gone says that an agent is not there any more.
	Gone(uid uuid.UUID, reason Reason)
	// Dropped says that a part of a Reply, or an offer that waited for the next poll, was not sent; err is what Push returns.
	Dropped(uid uuid.UUID, err error)
}

// Principal is who authenticated.
type Principal struct {
	// Name is for logs.
	Name string
	// Value is the owner's.
	Value any
}

// StatusError refuses a request.
type StatusError struct {
	Code       int
	Message    string
	RetryAfter time.Duration
}

func (e *StatusError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Message) }

// Transport is how an agent is connected.
type Transport int

// The transports of the protocol (spec "Transports").
const (
	WebSocket Transport = iota
	HTTP
)

func (t Transport) String() string { return [...]string{"websocket", "http"}[t] }

// Parts is a set of parts of an agent's state.
type Parts uint32

// The parts of an agent's state.
const (
	PartCapabilities Parts = 1 << iota
	PartDescription
	PartHealth
	PartEffectiveConfig
	PartRemoteConfigStatus
	PartPackageStatuses
	PartConnectionSettingsStatus
	PartCustomCapabilities
	PartComponents
)

// Has says whether all of other are in the set.
func (p Parts) Has(other Parts) bool { return p&other == other }

// State is what an agent has said so far; parts that it never sent are nil.
type State struct {
	// Capabilities are the agent's bits (spec "AgentCapabilities").
	Capabilities             uint64
	Description              *protobufs.AgentDescription
	Health                   *protobufs.ComponentHealth
	RemoteConfigStatus       *protobufs.RemoteConfigStatus
	PackageStatuses          *protobufs.PackageStatuses
	ConnectionSettingsStatus *protobufs.ConnectionSettingsStatus
	CustomCapabilities       []string
	// EffectiveConfigHash is a SHA-256 of the last effective config, "" before the first. The config itself is not kept.
	EffectiveConfigHash string
	// ComponentsHash is the agent's hash of its components. The components are not kept.
	ComponentsHash string
}

// Can says whether the agent has all the given capabilities.
func (s *State) Can(c protobufs.AgentCapabilities) bool { return s.Capabilities&uint64(c) == uint64(c) }

// Report is one message of an agent, and what is known with it.
type Report struct {
	UID       uuid.UUID
	At        time.Time
	Principal Principal
	Transport Transport
	// Remote is the peer's address.
	Remote string
	// New: nothing was remembered of this agent.
	New bool
	// Reconnected: the first message of this agent on its connection, or after Gone.
	Reconnected bool
	// Restarted: a full report out of order, as of a process that has begun anew, or that got no answer to its first.
	Restarted bool
	// Introduced: the first full report since nothing was remembered. What it leaves out is not so any more, whatever the owner
	// remembers.
	Introduced bool
	// Incomplete: messages were lost or never seen; the full state was asked for and has not come yet.
	Incomplete bool
	// Previous is the UID that the agent had until it was given this one, else zero.
	Previous uuid.UUID
	// DuplicateOf is the UID of the other agent because of which this one was given a new one, else zero.
	DuplicateOf uuid.UUID
	// State is everything so far, this message included.
	State State
	// Changed are the parts of State that this message changed.
	Changed Parts

	// What only this message carries, nil if it does not.
	EffectiveConfig    *protobufs.EffectiveConfig
	Components         *protobufs.AvailableComponents // with details only when asked for
	CustomMessage      *protobufs.CustomMessage
	CertificateRequest *protobufs.CertificateRequest
	// Leaving: the agent said goodbye; Gone follows.
	Leaving bool
}

// Reply is what the owner adds to an answer.
type Reply struct {
	// Offer goes along, each part if the agent can take it; what it cannot take comes back through Dropped.
	Offer *Offer
	// BadRequest, if not empty, refuses the message; Unavailable, if not 0, asks the agent to go away for that long
	// (spec "ServerErrorResponse"). Nothing else is sent then.
	BadRequest  string
	Unavailable time.Duration
}

// Reason is why an agent is gone.
type Reason string

// Why agents are gone.
const (
	ReasonDisconnect Reason = "disconnect" // it said goodbye
	ReasonLost       Reason = "lost"       // its connection ended
	ReasonSilent     Reason = "silent"     // three intervals without a message
	ReasonHalfOpen   Reason = "half_open"  // its connection answers no ping
	ReasonSlow       Reason = "slow"       // its connection does not drain
	ReasonProtocol   Reason = "protocol"   // it broke the protocol and was disconnected
	ReasonRenamed    Reason = "renamed"    // it goes on under the UID that it was given
	ReasonForgotten  Reason = "forgotten"  // the owner forgot it
	ReasonShutdown   Reason = "shutdown"   // the server ends
)
