package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Options is what holds for the whole life of a session.
type Options struct {
	// StorageDirectory keeps the identity; it is made when it is missing.
	StorageDirectory string
	// InstanceUID is the configured one; the zero UUID means that there is none.
	InstanceUID uuid.UUID
	// NewInstanceUID is taken by an agent that needs a new one; zero: it generates one.
	NewInstanceUID uuid.UUID
	Logger         *zap.Logger
}

// Session is a connection to an OpAMP server that is kept alive, through reloads, until Close.
type Session struct {
	// Custom hands custom messages to other extensions.
	Custom *Registry

	report   *report
	identity *identity // owned by the loop once it runs
	offers   *offers   // owned by the loop once it runs

	mu       sync.Mutex // guards what the owner of the session replaces at a reload
	log      *zap.Logger
	settings Settings
	restart  func()
	// remoteConfig takes a configuration of the server.
	remoteConfig func(hash []byte, files map[string]*protobufs.AgentConfigFile)
	packages     func(*protobufs.PackagesAvailable)
	companion    Companion
	companionKey string
	// connections takes settings for connections that are not the session's own.
	connections func(hash []byte, settings *protobufs.ConnectionSettingsOffers)
	heartbeat   time.Duration // as the server wants it; 0: as in settings

	reconnect chan struct{} // capacity 1: the settings have changed
	begin     sync.Once     // the loop is started at most once, and not after Close
	ctx       context.Context
	cancel    context.CancelFunc
	done      chan struct{} // closed when the loop has ended

	state     state // owned by the loop
	uid       atomic.Pointer[uuid.UUID]
	connected atomic.Bool
	sent      atomic.Int64
	received  atomic.Int64
	sequence  uint64 // owned by the loop
}

// Open prepares a session; Begin starts it.
func Open(opts Options, settings Settings) (*Session, error) {
	id, err := loadIdentity(opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := newReport()
	s := &Session{
		Custom: &Registry{report: r}, report: r, identity: id, log: opts.Logger, settings: settings, restart: func() {}, remoteConfig: func([]byte, map[string]*protobufs.AgentConfigFile) {}, connections: func([]byte, *protobufs.ConnectionSettingsOffers) {},
		packages:  func(*protobufs.PackagesAvailable) {},
		reconnect: make(chan struct{}, 1), ctx: ctx, cancel: cancel, done: make(chan struct{}),
	}
	s.publishIdentity()
	s.SetCapabilities(0)
	s.loadOffers()
	return s, nil
}

// Begin connects, in the background: a server that is away is no error. It is called when everything that belongs into
// the first message has been set, and does nothing the second time.
func (s *Session) Begin() { s.begin.Do(func() { go s.run(s.ctx) }) }

// Close says goodbye to the server, as far as it is reachable within the context, and ends the session.
func (s *Session) Close(ctx context.Context) error {
	s.cancel()
	s.mu.Lock()
	s.closeCompanion()
	s.mu.Unlock()
	s.begin.Do(func() { close(s.done) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("the OpAMP session did not end in time"), ctx.Err())
	}
}

// Use replaces what belongs to one run of the Collector: logger, server, and what a restart command calls. A changed
// server is connected to at once.
func (s *Session) Use(log *zap.Logger, settings Settings, restart func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := settings.Key != s.settings.Key
	s.log, s.settings, s.restart = log, settings, restart
	if changed {
		s.heartbeat = 0
		select {
		case s.reconnect <- struct{}{}:
		default:
		}
	}
}

// InstanceUID is what the agent is known by at this moment.
func (s *Session) InstanceUID() uuid.UUID { return *s.uid.Load() }

// publishIdentity makes the identity readable outside the loop.
func (s *Session) publishIdentity() {
	uid := s.identity.uid
	s.uid.Store(&uid)
}

// Connected says whether the server has been reached and not been lost since.
func (s *Session) Connected() bool { return s.connected.Load() }

// Messages are the numbers of messages sent and received since the session was opened.
func (s *Session) Messages() (sent, received int64) { return s.sent.Load(), s.received.Load() }

// SetDescription, SetHealth, SetEffectiveConfig and SetComponents tell what there is to report. The server hears of it
// when it differs from what it knows. They never block. The values must not be changed afterwards.
func (s *Session) SetDescription(d *protobufs.AgentDescription) {
	set(s.report, partDescription, &s.report.description, d)
}

// SetHealth: see SetDescription.
func (s *Session) SetHealth(h *protobufs.ComponentHealth) {
	set(s.report, partHealth, &s.report.health, h)
}

// SetEffectiveConfig: see SetDescription.
func (s *Session) SetEffectiveConfig(c *protobufs.EffectiveConfig) {
	set(s.report, partEffectiveConfig, &s.report.effective, c)
}

// SetComponents takes all components with the hash that stands for them: see SetDescription.
func (s *Session) SetComponents(c *protobufs.AvailableComponents) {
	set(s.report, partComponents, &s.report.components, c)
}

// SetCapabilities says what the agent can do; ReportsStatus is always added, as the protocol demands.
func (s *Session) SetCapabilities(c protobufs.AgentCapabilities) {
	s.report.setCapabilities(c | protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus)
}

func (s *Session) current() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	settings := s.settings
	if s.heartbeat > 0 {
		settings.Interval = s.heartbeat
	}
	return settings
}

// setHeartbeat takes the interval that the server offers. An offer without one is, on the wire, the same as an offer
// of 0 and would end all heartbeats; it is taken for the former and changes nothing.
func (s *Session) setHeartbeat(interval time.Duration) {
	if interval <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heartbeat = interval
}

// interval is the time between heartbeats, or polls, of a connection; it may change while the connection lasts.
func (s *Session) interval(connected Settings) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.heartbeat > 0:
		return s.heartbeat
	case connected.Transport == s.settings.Transport:
		return s.settings.Interval
	default: // an offer has changed the transport
		return connected.Interval
	}
}

func (s *Session) onRestart() {
	s.mu.Lock()
	restart := s.restart
	s.mu.Unlock()
	restart()
}

func (s *Session) logger() *zap.Logger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}

// state is what was last said in the log: one line per change, not per attempt.
type state int

const (
	stateStarting state = iota
	stateConnected
	stateAway
	stateRefused
)

// say logs a change of state once. Called by the loop only.
func (s *Session) say(next state, message string, fields ...zap.Field) {
	if s.state == next {
		return
	}
	s.state = next
	if next == stateConnected {
		s.logger().Info(message, fields...)
		return
	}
	s.logger().Warn(message, fields...)
}

// encode finishes a message: who sends it, and its number.
func (s *Session) encode(m *protobufs.AgentToServer) ([]byte, error) {
	m.InstanceUid = s.identity.uid[:]
	m.SequenceNum = s.sequence
	if s.identity.temporary {
		m.Flags |= uint64(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid)
	}
	data, err := proto.Marshal(m)
	if err == nil {
		s.sequence++
	}
	return data, err
}
