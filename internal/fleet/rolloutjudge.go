package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxMessage bounds what is kept of an agent's words, in bytes.
const maxMessage = 1024

// judge brings every target's phase up to date with what its agent reports.
func (r *Rollout) judge(now time.Time, byUID map[string]Candidate) (events []Event, changed bool) {
	for _, uid := range slices.Sorted(maps.Keys(r.Targets)) {
		t := r.Targets[uid]
		before := *t
		c, there := byUID[uid]
		if !there {
			if t.Phase != PhaseFailed {
				t.Phase = PhaseGone
			}
		} else if kind := r.judgeOne(t, c); kind != "" {
			e := r.event(now, ActorServer, kind, t.Message)
			e.Agent, e.Hash = uid, t.Hash
			events = append(events, e)
		}
		changed = changed || *t != before
	}
	return events, changed
}

// judgeOne returns the kind of event to tell of, if any.
func (r *Rollout) judgeOne(t *Target, c Candidate) Kind {
	if t.Phase == PhaseFailed {
		return ""
	}
	if t.Phase == PhaseGone {
		// It is as if it were given the version now; its wave has gone on without it.
		*t = Target{Phase: PhaseAssigned, Wave: t.Wave, Away: true, Ill: t.Ill}
	}
	if c.Agent.Connected && t.Since == 0 {
		t.Since = r.Clock
	}
	if t.Phase == PhaseAssigned {
		return r.judgeAssigned(t, c)
	}
	return r.judgeApplied(t, c)
}

func (r *Rollout) judgeAssigned(t *Target, c Candidate) Kind {
	if refusal, refused := c.Agent.RemoteConfig.Refusal(c.Hash); refused {
		message := refusal.Error
		if refusal.At.Before(r.CreatedAt) {
			message = "failed on it before, and is not offered it again without force; then it said: " + message
		}
		return t.fail(c.Hash, message)
	}
	// Without a hash nothing is desired: whatever the agent runs, there is nothing that could fail.
	if c.Agent.Connected && (c.Agent.Runs(c.Hash) || c.Hash == "") {
		t.Phase, t.Hash, t.Since = PhaseApplied, c.Hash, r.Clock
		r.judgeApplied(t, c)
		return RolloutApplied
	}
	if t.Since != 0 && r.Clock-t.Since >= r.Spec.Timeout {
		return t.fail(c.Hash, fmt.Sprintf("did not apply within %s; connected: %t", r.Spec.Timeout, c.Agent.Connected))
	}
	return ""
}

// judgeApplied holds a target to the set that it applied: what other rollouts make of it later is not this one's.
func (r *Rollout) judgeApplied(t *Target, c Candidate) Kind {
	if refusal, refused := c.Agent.RemoteConfig.Refusal(t.Hash); refused {
		return t.fail(t.Hash, refusal.Error)
	}
	t.Ill = t.Ill && (!c.Agent.Connected || c.Agent.Unhealthy())
	unhealthy := c.Agent.Connected && c.Agent.Unhealthy() && !t.Ill
	since(&t.UnhealthySince, unhealthy, r.Clock)
	since(&t.SteadySince, !unhealthy, r.Clock)
	switch {
	case unhealthy && r.Clock-t.UnhealthySince >= healthGrace:
		message := "unhealthy"
		if h := c.Agent.Health; h.LastError != "" {
			message += ": " + h.LastError
		}
		return t.fail(t.Hash, message)
	case t.Phase == PhaseApplied && c.Agent.Connected && !unhealthy && r.Clock-t.SteadySince >= r.Spec.Soak:
		t.Phase = PhaseGood
	case t.Phase == PhaseApplied && r.Clock-t.Since >= r.Spec.Soak+r.Spec.Timeout:
		return t.fail(t.Hash, fmt.Sprintf("applied, but was not connected and healthy through a soak of %s within %s; connected: %t",
			r.Spec.Soak, r.Spec.Soak+r.Spec.Timeout, c.Agent.Connected))
	}
	return ""
}

// since keeps in at since when a condition has held without a break, 0 while it does not hold.
func since(at *time.Duration, holds bool, clock time.Duration) {
	if !holds {
		*at = 0
	} else if *at == 0 {
		*at = clock
	}
}

func (t *Target) fail(hash, message string) Kind {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "..."
	}
	t.Phase, t.Hash, t.Message = PhaseFailed, hash, message
	return RolloutFailed
}

// firstFailure tells of one agent that failed.
func (r *Rollout) firstFailure() string {
	for _, uid := range slices.Sorted(maps.Keys(r.Targets)) {
		if t := r.Targets[uid]; t.Phase == PhaseFailed {
			return uid + ": " + t.Message
		}
	}
	return ""
}
