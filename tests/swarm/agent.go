package swarm

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"
)

// errRestart is that the server commands it.
var errRestart = errors.New("restart")

// agent is one of the swarm. Its goroutine connects, waits for the first answer and then reads until the connection ends.
type agent struct {
	swarm *Swarm
	index int

	mu     sync.Mutex // guards all below, and is held while a message is written
	wire   *wire      // nil: not connected
	uid    uuid.UUID
	next   uint64 // sequence number
	known  bool   // the server has everything
	status *protobufs.RemoteConfigStatus
	text   []byte // effective configuration
}

// connect returns with the first answer of the server; whoever called it reads on.
func (a *agent) connect(ctx context.Context) (*wire, error) {
	s := a.swarm
	w, err := dial(ctx, s.config.LocalAddr(a.index), s.target, s.request)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	known := a.known
	if a.wire = w; s.ctx.Err() != nil { // Close has seen all that were connected
		a.wire = nil
	}
	a.mu.Unlock()
	_ = w.SetReadDeadline(time.Now().Add(patience))
	err = a.send(func(m *protobufs.AgentToServer) {
		if !known {
			a.complete(m)
		}
	})
	if err == nil {
		err = a.receive(w)
	}
	if err != nil {
		a.gone(w)
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = true
	if a.wire == w { // else it is leaving already
		err = w.SetReadDeadline(time.Time{})
	}
	return w, err
}

// join connects, however often it takes.
func (a *agent) join(ctx context.Context) (*wire, error) {
	for attempt := 0; ; attempt++ {
		w, err := a.connect(ctx)
		if err == nil || ctx.Err() != nil {
			return w, err
		}
		if errors.Is(err, errRestart) {
			a.reset()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(a.swarm.wait(err, attempt)):
		}
	}
}

// live reads until the connection ends, and past it only if the agent is told to restart.
func (a *agent) live(w *wire) {
	for errors.Is(a.read(w), errRestart) {
		a.leave()
		_ = a.read(w)
		a.reset()
		var err error
		if w, err = a.join(a.swarm.ctx); err != nil {
			return
		}
	}
}

// read ends with the connection, or when a restart is due.
func (a *agent) read(w *wire) error {
	for {
		if err := a.receive(w); err != nil {
			if !errors.Is(err, errRestart) {
				a.gone(w)
			}
			return err
		}
	}
}

// reset makes it a new process: what the last one had on disk, it has.
func (a *agent) reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next, a.known = 0, false
}

func (a *agent) connected() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wire != nil
}

// receive takes one message. An error ends the connection.
func (a *agent) receive(w *wire) error {
	for {
		opcode, payload, err := w.message()
		if err != nil {
			return err
		}
		switch opcode {
		case opPing:
			a.mu.Lock()
			err = w.control(opPong, payload)
			a.mu.Unlock()
		case opClose:
			a.closed(w, payload)
			return net.ErrClosed
		case opBinary:
			return a.handle(payload)
		}
		if err != nil {
			return err
		}
	}
}

// closed answers a Close frame that is not an answer itself.
func (a *agent) closed(w *wire, payload []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wire == w {
		a.swarm.counters.Closed.Add(1)
		_ = w.control(opClose, payload)
	}
}

// gone leaves a connection, unless another one has taken its place already.
func (a *agent) gone(w *wire) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = w.Close()
	if a.wire == w {
		a.wire = nil
		a.swarm.counters.Lost.Add(1)
	}
}

// cut and leave take the connection from the agent, and its reader ends: at once, or when the server has answered the goodbye. A socket
// that is closed while something is still unread would take the goodbye back.
func (a *agent) cut() bool { return a.part(func(w *wire) { w.reset() }) }

func (a *agent) leave() bool {
	return a.part(func(w *wire) {
		a.bye(w)
		_ = w.SetReadDeadline(time.Now().Add(closing))
	})
}

func (a *agent) part(end func(*wire)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wire == nil {
		return false
	}
	end(a.wire)
	a.wire = nil
	return true
}

// bye is what the protocol wants before a connection ends (spec "Closing Connection"). The caller holds a.mu.
func (a *agent) bye(w *wire) {
	m := a.message()
	m.AgentDisconnect = &protobufs.AgentDisconnect{}
	if a.write(w, m) == nil {
		_ = w.control(opClose, []byte{0x03, 0xe8}) // 1000
	}
}

// send is one message with what fill adds; fill runs with a.mu held.
func (a *agent) send(fill func(*protobufs.AgentToServer)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wire == nil {
		return net.ErrClosed
	}
	m := a.message()
	if fill != nil {
		fill(m)
	}
	return a.write(a.wire, m)
}

// message is what every message has. The caller holds a.mu.
func (a *agent) message() *protobufs.AgentToServer {
	uid := a.uid
	m := &protobufs.AgentToServer{InstanceUid: uid[:], SequenceNum: a.next, Capabilities: Capabilities}
	a.next++
	return m
}

func (a *agent) write(w *wire, m *protobufs.AgentToServer) error {
	a.swarm.counters.Sent.Add(1)
	return w.put(opBinary, 1+proto.Size(m), func(b []byte) ([]byte, error) {
		return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(append(b, 0), m)
	})
}

// complete makes a full report of a message. The caller holds a.mu.
func (a *agent) complete(m *protobufs.AgentToServer) {
	s := a.swarm
	m.AgentDescription = description(&s.config, a.index, a.uid, s.health)
	m.Health = s.health
	m.EffectiveConfig = effective(a.text)
	m.RemoteConfigStatus = a.status
	m.CustomCapabilities = planCapability()
}

// beat is a heartbeat.
func (a *agent) beat() {
	if err := a.send(nil); err == nil {
		a.swarm.counters.Heartbeats.Add(1)
	} else if !errors.Is(err, net.ErrClosed) {
		a.swarm.counters.WriteErrors.Add(1)
	}
}
