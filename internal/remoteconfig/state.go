package remoteconfig

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/overlay"
)

// Generation is what a server has sent, and what the base file is merged with. The nil Generation is the base file alone.
type Generation struct {
	// Hash is the server's name for it, opaque.
	Hash []byte `json:"hash"`
	// Files are its named files; none is a configuration too, and means the base file.
	Files []overlay.File `json:"files"`
	// Offers are the connection settings beside it; nil when there were none.
	Offers *Offers `json:"offers,omitempty"`
}

// subject is what a server's word, and the agent's answer, is about.
type subject string

const (
	aboutConfig      subject = "config"
	aboutConnections subject = "connections"
)

// hash is the server's name for that part of a generation.
func (g *Generation) hash(about subject) []byte {
	switch {
	case g == nil:
		return nil
	case about == aboutConfig:
		return g.Hash
	case g.Offers == nil:
		return nil
	default:
		return g.Offers.Hash
	}
}

// is says whether that part of a generation is the one of this name.
func (g *Generation) is(about subject, hash []byte) bool {
	return len(hash) > 0 && bytes.Equal(g.hash(about), hash)
}

func (g *Generation) offers() *Offers {
	if g == nil {
		return nil
	}
	return g.Offers
}

func (g *Generation) files() []overlay.File {
	if g == nil {
		return nil
	}
	return g.Files
}

// hashField shows a hash: as text if it is one, else in hexadecimal digits.
func hashField(hash []byte) zap.Field {
	for _, c := range hash {
		if c <= ' ' || c > '~' {
			return zap.String("hash", hex.EncodeToString(hash))
		}
	}
	return zap.ByteString("hash", hash)
}

// Stage is where a configuration failed.
type Stage string

// The stages, in the order in which a configuration passes them.
const (
	StagePolicy Stage = "policy"
	StageMerge  Stage = "merge"
	StageDryRun Stage = "dry run"
	StageState  Stage = "state" // the state directory cannot be written
	StageStart  Stage = "start"
	StageHealth Stage = "health"
	StageCrash  Stage = "crash"
)

// Outcome is what has become of a configuration.
type Outcome string

// The outcomes, as in RemoteConfigStatuses of the protocol; "" is UNSET.
const (
	Applying Outcome = "APPLYING"
	Applied  Outcome = "APPLIED"
	Failed   Outcome = "FAILED"
)

// Status is the last word on the configuration that was offered last.
type Status struct {
	Hash    []byte  `json:"hash,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"`
	Message string  `json:"message,omitempty"`
}

// refusal remembers a bad configuration: it is not tried again.
type refusal struct {
	About   subject   `json:"about"`
	Hash    []byte    `json:"hash"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// mostRefusals bounds what is remembered; the oldest are forgotten.
const mostRefusals = 32

// stored is what the state file holds.
type stored struct {
	// Good is the configuration that has proved good last, Previous the one before.
	Good     *Generation `json:"good,omitempty"`
	Previous *Generation `json:"previous,omitempty"`
	// Trial is one that has passed the checks and not yet the soak. It is on disk before anything is touched.
	Trial *Generation `json:"trial,omitempty"`
	// TrialOf is in which part the trial differs from Good.
	TrialOf subject   `json:"trial_of,omitempty"`
	Bad     []refusal `json:"bad,omitempty"`

	Status      Status `json:"status"`
	Connections Status `json:"connections"` // the same for connection settings
	// Running is true while a process runs: one that finds it true at its start knows that the last one crashed.
	Running bool        `json:"running"`
	Crashes []time.Time `json:"crashes,omitempty"` // of Good
	// Base stands for the base file that was ready last: with another one, Good is not to blame for what happens.
	Base string `json:"base,omitempty"`
}

// current is what is to run.
func (s *stored) current() *Generation {
	if s.Trial != nil {
		return s.Trial
	}
	return s.Good
}

// boot is what a new process makes of what the last one has left. goodRan says whether that was Good, as far as is known.
func (s *stored) boot(now time.Time, loop CrashLoop, goodRan bool) {
	if !s.Running {
		return
	}
	s.Running = false
	if s.Trial != nil {
		s.refuseTrial(now, StageCrash, "the process ended while it ran this configuration for the first time")
		return
	}
	if goodRan {
		s.crashed(now, loop, "the process crashed")
	}
}

// drop ends a trial without a verdict: the server may offer it again. It says whether the server waits for one.
func (s *stored) drop() (awaited bool) {
	last := s.status(s.TrialOf)
	if awaited = s.Trial.is(s.TrialOf, last.Hash); awaited {
		*last = Status{}
	}
	s.Trial = nil
	return awaited
}

// crashed counts a crash, or a failed start, of the good configuration, and takes it back when there are too many. It says
// whether it did.
func (s *stored) crashed(now time.Time, loop CrashLoop, what string) bool {
	s.Crashes = append(recent(s.Crashes, now, loop.Within), now)
	if len(s.Crashes) < loop.Crashes || s.Good == nil {
		s.Crashes = s.Crashes[max(0, len(s.Crashes)-loop.Crashes):]
		return false
	}
	s.demote(now, StageCrash, fmt.Sprintf("%s, for the %d. time within %v", what, len(s.Crashes), loop.Within))
	return true
}

// recent leaves out what was long ago, or is to come after the clock was set back.
func recent(times []time.Time, now time.Time, within time.Duration) []time.Time {
	return slices.DeleteFunc(times, func(t time.Time) bool { return now.Sub(t) > within || t.After(now) })
}

// demote takes the good configuration back, for the one before it.
func (s *stored) demote(now time.Time, stage Stage, reason string) {
	about := aboutConfig
	if s.Good.Offers != nil && bytes.Equal(s.Good.Hash, s.Previous.hash(aboutConfig)) {
		about = aboutConnections
	}
	s.refuse(now, about, s.Good.hash(about), stage, reason)
	s.Good, s.Previous, s.Crashes = s.Previous, nil, nil
}

// refuseTrial ends the trial: what was good before is to run again.
func (s *stored) refuseTrial(now time.Time, stage Stage, reason string) {
	s.refuse(now, s.TrialOf, s.Trial.hash(s.TrialOf), stage, reason)
	s.Trial = nil
}

// refuse remembers a bad configuration and makes FAILED the last word on it. It is not returned to either.
func (s *stored) refuse(now time.Time, about subject, hash []byte, stage Stage, reason string) {
	message := string(stage) + ": " + reason
	s.amend(about, Status{Hash: hash, Outcome: Failed, Message: message})
	if stage == StageState {
		return // the disk was bad
	}
	if s.Previous.is(about, hash) {
		s.Previous = nil
	}
	s.Bad = slices.DeleteFunc(s.Bad, func(r refusal) bool { return r.About == about && bytes.Equal(r.Hash, hash) })
	s.Bad = append([]refusal{{About: about, Hash: hash, Message: message, At: now}}, s.Bad...)
	s.Bad = s.Bad[:min(len(s.Bad), mostRefusals)]
}

// status is the last word on a subject.
func (s *stored) status(about subject) *Status {
	if about == aboutConnections {
		return &s.Connections
	}
	return &s.Status
}

// amend changes the last word on a subject, unless it is about what the server has offered since.
func (s *stored) amend(about subject, word Status) {
	if last := s.status(about); bytes.Equal(last.Hash, word.Hash) {
		*last = word
	}
}

// arrive says that the good configuration runs, if the server still waits for it; it returns whether it did.
func (s *stored) arrive() (news bool) {
	for _, about := range []subject{aboutConfig, aboutConnections} {
		if last := s.status(about); s.Trial == nil && last.Outcome == Applying && s.Good.is(about, last.Hash) {
			last.Outcome, news = Applied, true
		}
	}
	return news
}

// refused finds why a configuration is known to be bad.
func (s *stored) refused(about subject, hash []byte) (message string, ok bool) {
	for _, r := range s.Bad {
		if r.About == about && bytes.Equal(r.Hash, hash) {
			return r.Message, true
		}
	}
	return "", false
}

// try begins a trial.
func (s *stored) try(g *Generation, about subject) {
	s.Trial, s.TrialOf = g, about
	*s.status(about) = Status{Hash: g.hash(about), Outcome: Applying}
}

// promote ends the trial: it was good.
func (s *stored) promote(ignored string) {
	hash := s.Trial.hash(s.TrialOf)
	if s.Good != nil && !s.Good.is(s.TrialOf, hash) {
		s.Previous = s.Good
	}
	s.Good, s.Trial, s.Crashes = s.Trial, nil, nil
	s.amend(s.TrialOf, Status{Hash: hash, Outcome: Applied, Message: ignored})
}
