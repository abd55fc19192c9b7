package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

const (
	// trialLimit bounds all connections with a candidate together. With a goodbye and a connection the agent is back
	// within 30 s.
	trialLimit = 20 * time.Second
	// offerEvery is the time between two new offers that are looked at: each one may cost two connections and a write.
	offerEvery = 5 * time.Second
	// maxHash bounds a hash, which is kept; an offer with a longer one is ignored.
	maxHash = 1 << 10
)

var (
	// errOffered ends a connection for one with a candidate, or back: no wait lies between.
	errOffered = fmt.Errorf("%w: offered by the server", errSettingsChanged)
	// errRefused is an error response to the first report over a candidate.
	errRefused = errors.New("the server refuses the first report")
)

// receiveOffer takes note of an offer. One that is known is answered with its status; the newest of the others is looked at.
func (s *Session) receiveOffer(m *protobufs.ConnectionSettingsOffers, now time.Time) {
	o := s.offers
	if o.phase != idle {
		return // this connection is about to be left, or not known to be the server's: it offers again what is still wanted
	}
	hash := hashOf(m)
	if status, known := o.known(hash); known {
		o.queued = nil
		// The same news is no reason to send a message, or a server that repeats itself would be answered without end.
		wake := !proto.Equal(status.message(), s.report.connectionStatusOf(takerSession)) && now.Sub(o.restated) >= time.Second
		if wake {
			o.restated = now
		}
		s.report.setConnectionStatus(takerSession, status.message(), wake)
		return
	}
	o.queued = m
	s.offersDue(now)
}

// hashOf stands for an offer: servers that do not give a hash are helped out.
func hashOf(m *protobufs.ConnectionSettingsOffers) []byte {
	if len(m.Hash) > 0 {
		return m.Hash
	}
	data, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m) // what was just decoded can be encoded
	sum := sha256.Sum256(data)
	return sum[:]
}

// offersDue does what there is to do about offers at this time: the next one is looked at, a certificate asked for.
func (s *Session) offersDue(now time.Time) {
	o := s.offers
	if o.phase != idle {
		return
	}
	if m := o.queued; m != nil && !now.Before(o.notBefore) {
		o.queued, o.notBefore = nil, now.Add(offerEvery)
		s.take(hashOf(m), m.Opamp, now)
		return
	}
	s.requestCertificate(now)
}

// offersAlarm fires when offersDue has something to do; nil, which never fires, when there is nothing ahead.
func (s *Session) offersAlarm(now time.Time) <-chan time.Time {
	o := s.offers
	if o.phase != idle {
		return nil
	}
	if o.queued != nil {
		return time.After(o.notBefore.Sub(now))
	}
	if at, wanted := s.certificateDue(now); wanted {
		return time.After(at.Sub(now))
	}
	return nil
}

// take looks at a new offer: it is refused, in force already, or a candidate.
func (s *Session) take(hash []byte, m *protobufs.OpAMPConnectionSettings, now time.Time) {
	o, local := s.offers, s.current()
	offer := o.applied().merged(m)
	if offer.Endpoint == local.Endpoint {
		offer.Endpoint = ""
	}
	err := checkOffer(m, o.over)
	if err == nil && m.Certificate != nil {
		err = o.completeKey(offer.Certificate, now)
	}
	if err == nil && offer.sameConnection(o.applied()) {
		o.apply(storedOffer{hash, offer})
		s.setHeartbeat(offer.Interval)
		s.saveOffers()
		s.report.setConnectionStatus(takerSession, o.stored.Last.message(), true)
		return
	}
	if err == nil {
		_, err = local.with(s.ctx, offer)
	}
	if err == nil {
		o.stored.Candidate, o.stored.Starts, o.phase = &storedOffer{hash, offer}, 1, waiting
		o.stored.Last = storedStatus{hash, protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLYING, ""}
		if saveErr := o.save(); saveErr != nil && offer.Certificate != nil {
			err = fmt.Errorf("the certificate cannot be stored: %w", saveErr)
		} else if saveErr != nil {
			s.logger().Warn("The offered connection settings cannot be stored: they hold until this process ends.", zap.Error(saveErr))
		}
	}
	if err != nil {
		s.fail(hash, err)
		return
	}
	s.report.setConnectionStatus(takerSession, o.stored.Last.message(), true)
}

// with lays an offer over the local settings; an expired certificate is left out, so that the configured one, or none,
// gets the agent a new one.
func (local Settings) with(ctx context.Context, offer Offer) (Settings, error) {
	if offer.sameConnection(Offer{}) {
		return local, nil
	}
	if local.With == nil {
		return Settings{}, errors.New("this agent does not change its connection")
	}
	return local.With(ctx, offer)
}

// switchDue says that the connection is to be left for the candidate: the server has been told.
func (s *Session) switchDue() bool {
	o := s.offers
	if o.phase != waiting || s.report.lacks(partConnectionStatus) {
		return false
	}
	o.phase = trying
	return true
}

// choose says how to connect next: with the candidate, else with the applied offer, else as configured.
func (s *Session) choose(ctx context.Context) Settings {
	o, local := s.offers, s.current()
	if o.stored.Key != local.Key {
		s.rebase(local.Key)
	}
	if o.phase == waiting { // the connection was lost before the server could be told
		o.phase = trying
	}
	if o.phase == trying && o.stored.Starts > maxStarts {
		s.fail(o.stored.Candidate.Hash, errors.New("the agent ended before it was decided, several times"))
	}
	if o.phase == trying {
		settings, err := local.with(ctx, o.stored.Candidate.Offer)
		if err == nil {
			s.logger().Info("Trying the connection settings that the server offers.", zap.String("endpoint", settings.Endpoint), zap.String("hash", hex.EncodeToString(o.stored.Candidate.Hash)))
			return settings
		}
		s.fail(o.stored.Candidate.Hash, err)
	}
	if o.lockedOut(local) {
		s.warnOnce("The server refuses the credentials that it has given: trying the configured ones, too.")
		return local
	}
	offer := o.applied()
	if c := offer.Certificate; c != nil && c.keyPair(time.Now()) != nil {
		s.warnOnce("The client certificate that the server offered has expired: it is not used any more.")
		offer.Certificate = nil // the configured one, if any, may get the agent a new one
	}
	settings, err := local.with(ctx, offer)
	if err != nil {
		s.warnOnce("The server's connection settings cannot be used: the configured ones hold.", zap.Error(err))
		return local
	}
	return settings
}

// warnOnce keeps what is found at each connection from being said at each one.
func (s *Session) warnOnce(message string, fields ...zap.Field) {
	if s.offers.warned != message {
		s.offers.warned = message
		s.logger().Warn(message, fields...)
	}
}

// rebase forgets all offers: they were made on top of another local configuration.
func (s *Session) rebase(key string) {
	o := s.offers
	if had := o.stored.Applied != nil || o.stored.Candidate != nil; had {
		s.logger().Info("The server's settings have changed in the configuration: what the server offered before does not hold any more.")
	}
	stale := o.stored.Key != "" || o.stored.Applied != nil
	o.stored, o.phase, o.queued = storedOffers{Key: key}, idle, nil
	if stale {
		s.saveOffers()
	}
	s.report.setConnectionStatus(takerSession, &protobufs.ConnectionSettingsStatus{}, true)
}

// begin is called with each connection that is made. What another one has offered says nothing about this one's server.
func (o *offers) begin(settings Settings) {
	o.over, o.reported, o.queued, o.askedFor = settings, false, nil, uuid.Nil
}

// lacks says whether any of the parts is still to be sent.
func (r *report) lacks(p part) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lacking&p != 0
}
