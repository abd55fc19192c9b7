package agent

import (
	"context"
	"errors"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
)

const (
	// goodbyeLimit bounds the last message and the closing of the connection.
	goodbyeLimit = 3 * time.Second
	// exchangeGrace is how long a message under way may take when the session ends.
	exchangeGrace = time.Second
	// dialLimit bounds a connection's handshake, and a request over HTTP.
	dialLimit = 30 * time.Second
)

// link is a connection to the server, made by dialWebSocket or newPoller.
type link interface {
	// exchange sends one message. What comes back, at once or later, goes to incoming.
	exchange(ctx context.Context, data []byte) error
	// incoming are messages of the server; nil is one that was malformed.
	incoming() <-chan *protobufs.ServerToAgent
	// lost is closed when the connection is gone; reason says why.
	lost() <-chan struct{}
	reason() error
	// close ends the connection in order.
	close(ctx context.Context)
}

// run keeps the session connected until ctx ends.
func (s *Session) run(ctx context.Context) {
	defer close(s.done)
	defer s.connected.Store(false)
	var wait backoff
	for ctx.Err() == nil {
		began := time.Now()
		settings := s.choose(ctx)
		err := s.attempt(ctx, settings)
		s.connected.Store(false)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errOffered) {
			continue // the wait stays as it is: offers are no way around it
		}
		if errors.Is(err, errSettingsChanged) {
			wait = backoff{}
			continue
		}
		s.say(stateAway, "The OpAMP server is not reachable, will retry.", zap.String("endpoint", settings.Endpoint), zap.Error(err))
		timer := time.NewTimer(wait.next(time.Since(began), retryAfter(err)))
		select {
		case <-ctx.Done():
		case <-s.reconnect:
			wait = backoff{}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// errSettingsChanged ends a connection for another one.
var errSettingsChanged = errors.New("the server's settings have changed")

func retryAfter(err error) time.Duration {
	var unavailable *unavailableError
	if errors.As(err, &unavailable) {
		return unavailable.retryAfter
	}
	return 0
}

// connection makes one connection and uses it until it is lost, the settings change, or ctx ends.
func (s *Session) connection(ctx context.Context, settings Settings) error {
	var l link
	if settings.Transport == HTTP {
		l = newPoller(s, settings)
	} else {
		ws, err := dialWebSocket(ctx, settings)
		if err != nil {
			return err
		}
		l = ws
	}
	s.report.forget()
	s.offers.begin(settings)
	err := s.converse(ctx, settings, l)
	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeLimit)
	defer cancel()
	if ctx.Err() != nil || errors.Is(err, errSettingsChanged) || errors.Is(err, errRefused) {
		s.disconnect(goodbye, l)
	}
	l.close(goodbye)
	return err
}

// disconnect tells the server that the agent leaves on purpose (spec "Closing Connection").
func (s *Session) disconnect(ctx context.Context, l link) {
	m := &protobufs.AgentToServer{AgentDisconnect: &protobufs.AgentDisconnect{}, Capabilities: uint64(s.report.announced())}
	if data, err := s.encode(m); err == nil && l.exchange(ctx, data) == nil {
		s.sent.Add(1)
	}
}

// converse sends what there is to send and acts on what comes back.
func (s *Session) converse(ctx context.Context, settings Settings, l link) error {
	beat := time.NewTimer(0) // the first message is sent at once
	defer beat.Stop()
	interval, sentAt := s.interval(settings), time.Now()
	for {
		force, err := s.await(ctx, settings, l, beat.C)
		if err != nil {
			return err
		}
		if wanted := s.interval(settings); wanted != interval {
			interval = wanted
			if beat.Stop(); interval > 0 {
				beat.Reset(time.Until(sentAt.Add(interval)))
			}
		}
		s.offersDue(time.Now())
		sent, later, err := s.send(ctx, l, force)
		if err != nil {
			return err
		}
		if sent {
			sentAt, s.offers.reported = time.Now(), true
		}
		if s.switchDue() {
			return errOffered
		}
		switch {
		case later > 0: // a report that was put off
			beat.Reset(later)
		case sent && interval > 0: // heartbeats count from the last message
			beat.Reset(interval)
		case sent: // no heartbeats, and the first message need not be sent again
			beat.Stop()
		}
	}
}

// await returns when there may be something to send; force says that it is time for a heartbeat.
func (s *Session) await(ctx context.Context, settings Settings, l link, beat <-chan time.Time) (force bool, err error) {
	// Over HTTP the answer is there when the exchange is over. It is looked at before anything else is sent: the next
	// answer would take its place.
	select {
	case m := <-l.incoming():
		return false, s.answered(m, settings)
	default:
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-s.reconnect:
		return false, errSettingsChanged
	case <-l.lost():
		return false, l.reason()
	case m := <-l.incoming():
		return false, s.answered(m, settings)
	case <-s.report.wake:
		return false, nil
	case <-beat:
		return true, nil
	case <-s.offersAlarm(time.Now()):
		return false, nil
	}
}

// answered handles a message of the server; the first one that can be read means that the agent is connected.
func (s *Session) answered(m *protobufs.ServerToAgent, settings Settings) error {
	s.received.Add(1)
	if m == nil {
		s.logger().Debug("Ignored a malformed message of the server.")
		return nil
	}
	if err := s.verify(m); err != nil {
		return err
	}
	if err := s.receive(m); err != nil {
		return err
	}
	if m.ErrorResponse == nil {
		s.connected.Store(true)
		s.say(stateConnected, "Connected to the OpAMP server.", zap.String("endpoint", settings.Endpoint), zap.Stringer("instance_uid", s.identity.uid))
	}
	return nil
}

// send sends one message when there is something to send or it is time for a heartbeat. later is when to come back for a
// report that was put off; 0 means that none was.
func (s *Session) send(ctx context.Context, l link, force bool) (sent bool, later time.Duration, err error) {
	out, later := s.report.next(time.Now(), force)
	if out == nil {
		return false, later, nil
	}
	data, err := s.encode(out.message)
	if err != nil {
		return false, 0, err
	}
	sending, cancel := outlive(ctx, exchangeGrace, dialLimit)
	defer cancel()
	if err := l.exchange(sending, data); err != nil {
		s.report.putBack(out)
		return false, 0, err
	}
	s.sent.Add(1)
	if out.custom != nil {
		close(out.custom.sent)
	}
	return true, later, nil
}

// outlive returns a context that ends after limit, or grace after ctx. A write to a WebSocket whose context has ended, before it or
// during it, leaves a connection that takes no more: a message that the end of the session finds on its way would take it from
// under the goodbye.
func outlive(ctx context.Context, grace, limit time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-longer.Done():
		case <-time.After(grace):
			cancel()
		}
	})
	return longer, func() {
		stop()
		cancel()
	}
}
