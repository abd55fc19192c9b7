package agent

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/statefile"
)

const (
	// offersFile is the name of the state file that keeps what the server has offered of its own connection.
	offersFile = "connection.json"
	// maxFailed is how many failed offers are remembered.
	maxFailed = 16
	// maxStarts is how many processes may try a candidate: one that never lives to see the result must not keep the
	// agent from its server for ever.
	maxStarts = 3
)

// storedOffers is the content of the file.
type storedOffers struct {
	// Key is of the local settings below the offers: when they change, the local configuration wins.
	Key       string       `json:"key"`
	Applied   *storedOffer `json:"applied"`
	Candidate *storedOffer `json:"candidate"`
	Starts    int          `json:"starts"` // processes that have found the candidate
	// Failed are the last offers that did not work, the newest last: they are not tried again.
	Failed []storedStatus `json:"failed"`
	// Last is what was last reported.
	Last storedStatus `json:"last"`
	// Request is the key of the certificate that the server is asked for.
	Request *certificateRequest `json:"request"`
	// Certified is who the agent was when the applied certificate was offered.
	Certified uuid.UUID `json:"certified"`
}

type storedOffer struct {
	Hash  []byte `json:"hash"`
	Offer Offer  `json:"offer"`
}

type storedStatus struct {
	Hash    []byte                               `json:"hash"`
	Status  protobufs.ConnectionSettingsStatuses `json:"status"`
	Message string                               `json:"message"`
}

func (s storedStatus) message() *protobufs.ConnectionSettingsStatus {
	return &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: s.Hash, Status: s.Status, ErrorMessage: s.Message}
}

// phase is where the candidate is.
type phase int

const (
	idle    phase = iota // there is none
	waiting              // APPLYING is on its way over the connection before
	trying               // connections are made with it
)

// offers is what has become of the server's offers of its own connection. The loop owns it.
type offers struct {
	path   string
	stored storedOffers
	phase  phase
	over   Settings // of the current connection
	// queued is the newest offer while it is too early for one; older ones are forgotten.
	queued    *protobufs.ConnectionSettingsOffers
	notBefore time.Time     // when the next offer is looked at
	restated  time.Time     // when a known offer was last answered
	reported  bool          // this connection has had its first report
	within    time.Duration // trialLimit; tests have less patience
	limit     *time.Timer   // ends the connections with the candidate
	asked     time.Time     // when a certificate was last asked for on this connection, zero if never
	askedFor  uuid.UUID
	warned    string // what was last warned of
	refusals  int    // connections in a row, outside of trials, that were refused for their credentials
}

// loadOffers reads what the last process has left. A candidate is tried once more; the local configuration holds when
// the file is damaged.
func (s *Session) loadOffers() {
	o := &offers{path: filepath.Join(s.identity.directory, offersFile), within: trialLimit}
	s.offers = o
	switch err := statefile.Read(o.path, &o.stored); {
	case errors.Is(err, statefile.ErrSetAside):
		s.log.Error("The stored connection settings were damaged: the configured ones hold.", zap.Error(err))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		s.log.Warn("The stored connection settings cannot be read: the configured ones hold.", zap.Error(err))
	}
	if o.stored.Key != s.settings.Key {
		return // choose sees to it
	}
	if o.stored.Candidate != nil {
		o.stored.Starts++
		o.phase = trying
		s.saveOffers()
	}
	if o.stored.Applied != nil {
		s.setHeartbeat(o.stored.Applied.Offer.Interval)
	}
	s.report.connection.statuses[takerSession] = o.stored.Last.message()
}

func (s *Session) saveOffers() {
	if err := s.offers.save(); err != nil {
		s.logger().Warn("The server's connection settings cannot be stored: they hold until this process ends.", zap.Error(err))
	}
}

func (o *offers) save() error { return statefile.Write(o.path, o.stored) }

// applied is the offer in force.
func (o *offers) applied() Offer {
	if o.stored.Applied == nil {
		return Offer{}
	}
	return o.stored.Applied.Offer
}

// lockedOut says whether the configured credentials are to be tried this time: those that the server has given were refused several
// times, as they are when it has forgotten the agent. The offer stays, and is tried every other time.
func (o *offers) lockedOut(local Settings) bool {
	offer := o.applied()
	own := offer.Headers != nil || offer.Certificate != nil
	here := offer.Endpoint == "" || offer.Endpoint == local.Endpoint
	return own && here && o.refusals >= 3 && o.refusals%2 == 1
}

// known finds an offer that has been dealt with.
func (o *offers) known(hash []byte) (storedStatus, bool) {
	if a := o.stored.Applied; a != nil && slices.Equal(a.Hash, hash) {
		return storedStatus{hash, protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED, ""}, true
	}
	i := slices.IndexFunc(o.stored.Failed, func(f storedStatus) bool { return slices.Equal(f.Hash, hash) })
	if i < 0 {
		return storedStatus{}, false
	}
	return o.stored.Failed[i], true
}

// fail forgets the candidate and remembers that it failed.
func (o *offers) fail(hash []byte, message string) {
	failed := storedStatus{hash, protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED, message}
	o.stored.Failed = append(o.stored.Failed, failed)
	o.stored.Failed = o.stored.Failed[max(0, len(o.stored.Failed)-maxFailed):]
	o.stored.Candidate, o.stored.Last, o.phase = nil, failed, idle
}

// apply makes an offer the one in force.
func (o *offers) apply(offer storedOffer) {
	o.stored.Applied, o.stored.Candidate, o.phase, o.warned = &offer, nil, idle, ""
	o.stored.Last = storedStatus{offer.Hash, protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED, ""}
}
