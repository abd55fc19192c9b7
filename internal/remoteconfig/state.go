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
}

func (g *Generation) is(hash []byte) bool { return g != nil && bytes.Equal(g.Hash, hash) }

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
	Bad   []refusal   `json:"bad,omitempty"`

	Status Status `json:"status"`
	// Running is true while a process runs: one that finds it true at its start knows that the last one crashed.
	Running bool        `json:"running"`
	Crashes []time.Time `json:"crashes,omitempty"` // of Good
}

// current is what is to run.
func (s *stored) current() *Generation {
	if s.Trial != nil {
		return s.Trial
	}
	return s.Good
}

// boot is what a new process makes of what the last one has left. A trial that ended in order starts anew.
func (s *stored) boot(now time.Time, loop CrashLoop) {
	if !s.Running {
		return
	}
	s.Running = false
	if s.Trial != nil {
		s.refuseTrial(now, StageCrash, "the process ended while it ran this configuration for the first time")
		return
	}
	s.crashed(now, loop, "the process crashed")
}

// crashed counts a crash, or a failed start, of the good configuration, and takes it back when there are too many. It says
// whether it did.
func (s *stored) crashed(now time.Time, loop CrashLoop, what string) bool {
	s.Crashes = slices.DeleteFunc(s.Crashes, func(t time.Time) bool { return now.Sub(t) > loop.Within })
	s.Crashes = append(s.Crashes, now)
	if len(s.Crashes) < loop.Crashes || s.Good == nil {
		s.Crashes = s.Crashes[max(0, len(s.Crashes)-loop.Crashes):]
		return false
	}
	s.demote(now, StageCrash, fmt.Sprintf("%s, for the %d. time within %v", what, len(s.Crashes), loop.Within))
	return true
}

// demote takes the good configuration back, for the one before it.
func (s *stored) demote(now time.Time, stage Stage, reason string) {
	s.refuse(now, s.Good.Hash, stage, reason)
	s.Good, s.Previous, s.Crashes = s.Previous, nil, nil
}

// refuseTrial ends the trial: what was good before is to run again.
func (s *stored) refuseTrial(now time.Time, stage Stage, reason string) {
	s.refuse(now, s.Trial.Hash, stage, reason)
	s.Trial = nil
}

// refuse remembers a bad configuration and makes FAILED the last word on it.
func (s *stored) refuse(now time.Time, hash []byte, stage Stage, reason string) {
	message := string(stage) + ": " + reason
	s.Status = Status{Hash: hash, Outcome: Failed, Message: message}
	s.Bad = slices.DeleteFunc(s.Bad, func(r refusal) bool { return bytes.Equal(r.Hash, hash) })
	s.Bad = append([]refusal{{Hash: hash, Message: message, At: now}}, s.Bad...)
	s.Bad = s.Bad[:min(len(s.Bad), mostRefusals)]
}

// refused finds why a configuration is known to be bad.
func (s *stored) refused(hash []byte) (message string, ok bool) {
	for _, r := range s.Bad {
		if bytes.Equal(r.Hash, hash) {
			return r.Message, true
		}
	}
	return "", false
}

// try begins a trial.
func (s *stored) try(g *Generation) {
	s.Trial = g
	s.Status = Status{Hash: g.Hash, Outcome: Applying}
}

// promote ends the trial: it was good.
func (s *stored) promote() {
	if s.Good != nil && !s.Good.is(s.Trial.Hash) {
		s.Previous = s.Good
	}
	s.Good, s.Trial, s.Crashes = s.Trial, nil, nil
	s.Status = Status{Hash: s.Good.Hash, Outcome: Applied}
}
