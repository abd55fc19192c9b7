package agent

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/opampcustommessages"
)

// customSend is a custom message on its way out; sent is closed when it has been written.
type customSend struct {
	message *protobufs.CustomMessage
	sent    chan struct{}
}

// errUnregistered is returned by handlers that were unregistered, by their owner or by a reload.
var errUnregistered = errors.New("the custom capability was unregistered")

// Registry hands custom messages to the extensions that have registered for their capability. It implements
// opampcustommessages.CustomCapabilityRegistry. Its handlers live until they are unregistered.
type Registry struct {
	report *report

	mu       sync.Mutex // guards handlers
	handlers []*customHandler
	dropped  atomic.Int64
}

var _ opampcustommessages.CustomCapabilityRegistry = (*Registry)(nil)

// Register registers a capability, a reverse FQDN with an optional version. Several handlers may share one.
func (r *Registry) Register(capability string, opts ...opampcustommessages.CustomCapabilityRegisterOption) (opampcustommessages.CustomCapabilityHandler, error) {
	if capability == "" {
		return nil, errors.New("register a custom capability: it needs a name, such as com.example.capability/v1")
	}
	o := opampcustommessages.DefaultCustomCapabilityRegisterOptions()
	for _, opt := range opts {
		opt(o)
	}
	if o.MaxQueuedMessages < 1 {
		return nil, fmt.Errorf("register custom capability %s: the queue must hold at least one message, not %d", capability, o.MaxQueuedMessages)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.register(capability, o.MaxQueuedMessages), nil
}

// register adds a handler. The caller holds mu.
func (r *Registry) register(capability string, queue int) *customHandler {
	h := &customHandler{registry: r, capability: capability, incoming: make(chan *protobufs.CustomMessage, queue)}
	r.handlers = append(r.handlers, h)
	r.announce()
	return h
}

// lastingQueue is how many messages wait for a handler of the agent itself.
const lastingQueue = 8

// Lasting returns the one handler of a capability of the agent itself, which outlives reloads.
func (r *Registry) Lasting(capability string) opampcustommessages.CustomCapabilityHandler {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.handlers {
		if h.lasting && h.capability == capability {
			return h
		}
	}
	h := r.register(capability, lastingQueue)
	h.lasting = true
	return h
}

// Dropped counts the messages that found the queue of their handler full, or no handler at all.
func (r *Registry) Dropped() int64 { return r.dropped.Load() }

// UnregisterAll is for a reload: the extensions behind the handlers are gone.
func (r *Registry) UnregisterAll() {
	r.mu.Lock()
	handlers := slices.Clone(r.handlers)
	r.mu.Unlock()
	for _, h := range handlers {
		if !h.lasting {
			h.Unregister()
		}
	}
}

// announce tells the server the capabilities, each once. The caller holds mu.
func (r *Registry) announce() {
	var names []string
	for _, h := range r.handlers {
		names = append(names, h.capability)
	}
	slices.Sort(names)
	r.report.setCustomCapabilities(slices.Compact(names))
}

// deliver never blocks: a full queue drops the message and counts it.
func (r *Registry) deliver(m *protobufs.CustomMessage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := false
	for _, h := range r.handlers {
		if h.capability != m.Capability {
			continue
		}
		select {
		case h.incoming <- m:
			taken = true
		default:
		}
	}
	if !taken {
		r.dropped.Add(1)
	}
}

// customHandler is one registration.
type customHandler struct {
	registry   *Registry
	capability string
	incoming   chan *protobufs.CustomMessage
	lasting    bool // of the agent itself: see Lasting

	mu      sync.Mutex // guards gone and pending
	gone    bool
	pending chan struct{} // the last message's, until it is closed
}

func (h *customHandler) Message() <-chan *protobufs.CustomMessage { return h.incoming }

// SendMessage queues one message; while it waits, another one is refused with types.ErrCustomMessagePending.
func (h *customHandler) SendMessage(messageType string, data []byte) (chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return nil, errUnregistered
	}
	if h.pending != nil {
		select {
		case <-h.pending:
		default:
			return h.pending, types.ErrCustomMessagePending
		}
	}
	h.pending = make(chan struct{})
	m := &protobufs.CustomMessage{Capability: h.capability, Type: messageType, Data: data}
	r := h.registry.report
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, &customSend{message: m, sent: h.pending})
	r.changed(0)
	return h.pending, nil
}

func (h *customHandler) Unregister() {
	h.mu.Lock()
	h.gone = true
	h.mu.Unlock()
	r := h.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.handlers, h); i >= 0 {
		r.handlers = slices.Delete(r.handlers, i, i+1)
		r.announce()
	}
}
