package agent

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
)

// attempt makes a connection and returns when it has ended. With a candidate it makes as many as it takes, within
// trialLimit, until one works or the candidate has failed.
func (s *Session) attempt(ctx context.Context, settings Settings) error {
	o := s.offers
	if o.phase != trying {
		err := s.connection(ctx, settings)
		if o.refusals++; !errors.Is(err, errUnauthorized) {
			o.refusals = 0
		}
		return err
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	deadline := time.Now().Add(o.within)
	o.limit = time.AfterFunc(o.within, cancel)
	defer o.limit.Stop()
	var wait backoff
	for {
		err := s.connection(bounded, settings)
		if o.phase != trying || ctx.Err() != nil || errors.Is(err, errSettingsChanged) {
			return err
		}
		pause := wait.next(0, retryAfter(err))
		if bounded.Err() != nil {
			err = fmt.Errorf("no valid answer within %v", o.within)
		}
		if bounded.Err() != nil || decided(err) || time.Now().Add(pause).After(deadline) {
			s.fail(o.stored.Candidate.Hash, err)
			return errOffered
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-s.reconnect:
			return errSettingsChanged
		case <-timer.C:
		}
		timer.Stop()
	}
}

// decided says that another try would end as this one did.
func decided(err error) bool {
	var untrusted *tls.CertificateVerificationError
	var alert *net.OpError // the server's word on our certificate
	return errors.Is(err, errUnauthorized) || errors.Is(err, errRefused) || errors.As(err, &untrusted) ||
		errors.As(err, &alert) && alert.Op == "remote error"
}

// verify looks at an answer over a candidate. The first one for this instance, after the first report, that is no error
// makes it the connection in force.
func (s *Session) verify(m *protobufs.ServerToAgent) error {
	o := s.offers
	if o.phase != trying || !slices.Equal(m.InstanceUid, s.identity.uid[:]) || !o.reported {
		return nil
	}
	if e := m.ErrorResponse; e != nil {
		if e.Type == protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable {
			return nil // receive has it tried again
		}
		return fmt.Errorf("%w: %v: %s", errRefused, e.Type, printable(e.ErrorMessage))
	}
	if !o.limit.Stop() {
		return nil // too late
	}
	candidate := *o.stored.Candidate
	if candidate.Offer.Certificate != nil {
		o.stored.Certified, o.stored.Request = s.identity.uid, nil
	}
	o.apply(candidate)
	s.saveOffers()
	s.setHeartbeat(candidate.Offer.Interval)
	o.notBefore = time.Now().Add(offerEvery)
	s.report.setConnectionStatus(takerSession, o.stored.Last.message(), true)
	s.logger().Info("The offered connection settings work and are used from now on.", zap.String("hash", hex.EncodeToString(candidate.Hash)))
	return nil
}

// fail ends an offer that is refused or does not work.
func (s *Session) fail(hash []byte, reason error) {
	o := s.offers
	o.fail(hash, printable(reason.Error()))
	o.notBefore = time.Now().Add(offerEvery)
	s.saveOffers()
	s.report.setConnectionStatus(takerSession, o.stored.Last.message(), true)
	s.logger().Warn("The offered connection settings are not used.", zap.String("hash", hex.EncodeToString(hash)), zap.String("reason", o.stored.Last.Message))
}
