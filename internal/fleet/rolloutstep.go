package fleet

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

const (
	// maxTick is the most that the clock advances between two Steps: an hour without a server is not an hour in which agents
	// did not answer.
	maxTick = 10 * time.Second
	// settleTime is how long no wave begins after such a gap: agents must have time to come back.
	settleTime = time.Minute
	// healthGrace is how long an agent may be unhealthy before it counts as failed.
	healthGrace = 5 * time.Second
)

// Candidate is an agent that a rollout concerns, and the hash of what it should run once it has the new version.
type Candidate struct {
	Agent *Agent
	Hash  string
}

// Candidates are the agents that the rollout concerns: those that accept remote configuration and that one of the two versions
// chooses. The agents must be as they are now, and deployments must hold the rollout as it is now.
func Candidates(all []*Agent, deployments []Deployment, rollout string) []Candidate {
	i := slices.IndexFunc(deployments, func(d Deployment) bool { return d.Rollout != nil && d.Rollout.ID == rollout })
	if i < 0 {
		return nil
	}
	var candidates []Candidate
	for _, a := range all {
		if a.Capabilities.Has(AcceptsRemoteConfig) && deployments[i].Reaches(a.Attributes()) {
			candidates = append(candidates, Candidate{a, DesiredIf(a, deployments, rollout).Hash})
		}
	}
	return candidates
}

// Step looks at the agents and does what is due: judges those that have the version, begins the next wave, ends the rollout.
// It returns what happened, and whether anything but the clock changed, so that the rollout must be stored before anyone acts
// on it. It has no other input than its arguments and the rollout; the order of the candidates does not matter.
func (r *Rollout) Step(now time.Time, candidates []Candidate) (events []Event, changed bool) {
	if r.State.Final() {
		return nil, false
	}
	if r.Targets == nil {
		r.Targets = map[string]*Target{}
	}
	held := r.tick(now)
	byUID := make(map[string]Candidate, len(candidates))
	for _, c := range candidates {
		byUID[c.Agent.UID] = c
	}
	events, changed = r.judge(now, byUID)
	changed = changed || held
	if n := r.Failures(); n > r.Spec.MaxFailures {
		message := fmt.Sprintf("%d of %s failed; the budget is %d. %s", n, agents(len(r.Targets)), r.Spec.MaxFailures, r.firstFailure())
		return append(events, r.takeBack(now, ActorServer, RolloutTakenBack, RolloutRolledBack, message)...), true
	}
	if r.State != RolloutIsPaused {
		more, advanced := r.advance(now, byUID)
		events, changed = append(events, more...), changed || advanced
	}
	if changed {
		r.UpdatedAt = now
	}
	return events, changed
}

// tick moves the clock, and says whether waves are held up because nobody had looked for long.
func (r *Rollout) tick(now time.Time) (held bool) {
	if gap := now.Sub(r.SteppedAt); !r.SteppedAt.IsZero() && gap > 0 {
		r.Clock += min(gap, maxTick)
		if held = gap > maxTick; held {
			r.HoldUntil = r.Clock + settleTime
		}
	}
	r.SteppedAt = now
	return held
}

// advance begins waves until one has to be waited for, or ends the rollout.
func (r *Rollout) advance(now time.Time, byUID map[string]Candidate) (events []Event, changed bool) {
	steps := r.Spec.steps()
	for r.waveDone() {
		if r.Wave == len(steps) || len(byUID) == 0 {
			r.State, r.FinishedAt = RolloutDone, now
			r.Message = fmt.Sprintf("%s, %d failed", agents(len(r.Targets)), r.Failures())
			if len(r.Targets) == 0 {
				r.Message = "it concerns no agent that is known; those that come get it"
			}
			return append(events, r.event(now, ActorServer, RolloutSucceeded, r.Message)), true
		}
		if waits := r.waits(now, byUID); waits != "" {
			changed = changed || r.Message != waits
			r.Message = waits
			return events, changed
		}
		if r.State == RolloutPending {
			r.State = RolloutRunning
			events = append(events, r.event(now, ActorServer, RolloutStarted, ""))
		}
		events, changed = append(events, r.nextWave(now, byUID, steps)...), true
	}
	return events, changed
}

// waits says why the next wave cannot begin now.
func (r *Rollout) waits(now time.Time, byUID map[string]Candidate) string {
	connected, missing := 0, 0
	for _, c := range byUID {
		switch {
		case c.Agent.Connected:
			connected++
		case now.Sub(c.Agent.LastSeen) < r.Spec.Timeout:
			missing++
		}
	}
	switch {
	case r.Clock < r.HoldUntil:
		return "waits for agents to come back after a pause of the server"
	case connected == 0:
		return "waits for an agent to connect"
	case missing > connected:
		return fmt.Sprintf("waits: %d agents have just gone, %d are here", missing, connected)
	}
	return ""
}

// waveDone says whether none of the wave's agents has to be waited for.
func (r *Rollout) waveDone() bool {
	for _, t := range r.Targets {
		if t.Wave == r.Wave && !t.Away && (t.Phase == PhaseAssigned || t.Phase == PhaseApplied) {
			return false
		}
	}
	return true
}

// nextWave gives the version to the agents of the next wave.
func (r *Rollout) nextWave(now time.Time, byUID map[string]Candidate, steps []Amount) []Event {
	last := r.Wave+1 == len(steps)
	quota := steps[r.Wave].of(len(byUID))
	var eligible []Candidate
	for uid, c := range byUID {
		switch t := r.Targets[uid]; {
		case t != nil && t.Phase != PhaseGone:
			quota--
		case t == nil && (last || c.Agent.Connected):
			eligible = append(eligible, c)
		}
	}
	if last {
		quota = len(eligible)
	}
	r.sort(eligible)
	eligible = eligible[:max(0, min(quota, len(eligible)))]
	r.Wave, r.Message = r.Wave+1, ""
	events := []Event{r.event(now, ActorServer, RolloutWave,
		fmt.Sprintf("wave %d of %d: %s", r.Wave, len(steps), agents(len(eligible))))}
	for _, c := range eligible {
		t := &Target{Phase: PhaseAssigned, Wave: r.Wave, Away: !c.Agent.Connected, Ill: c.Agent.Unhealthy()}
		if c.Agent.Connected {
			t.Since = r.Clock
		}
		r.Targets[c.Agent.UID] = t
		e := r.event(now, ActorServer, RolloutAssigned, "")
		e.Agent, e.Hash = c.Agent.UID, c.Hash
		events = append(events, e)
	}
	return events
}

// agents is a number of them in words.
func agents(n int) string {
	if n == 1 {
		return "1 agent"
	}
	return fmt.Sprintf("%d agents", n)
}

// sort puts connected agents first, among them those that are not unhealthy, and else orders by a hash of uid and rollout: the
// same agents are not the canaries of every rollout, and the same rollout always comes to the same ones.
func (r *Rollout) sort(candidates []Candidate) {
	type key struct {
		rank int
		hash [sha256.Size]byte
	}
	keys := make(map[string]key, len(candidates))
	for _, c := range candidates {
		k := key{hash: sha256.Sum256([]byte(r.ID + "\x00" + c.Agent.UID))}
		if c.Agent.Unhealthy() {
			k.rank = 1
		}
		if !c.Agent.Connected {
			k.rank = 2
		}
		keys[c.Agent.UID] = k
	}
	slices.SortFunc(candidates, func(a, b Candidate) int {
		x, y := keys[a.Agent.UID], keys[b.Agent.UID]
		return cmp.Or(cmp.Compare(x.rank, y.rank), slices.Compare(x.hash[:], y.hash[:]), cmp.Compare(a.Agent.UID, b.Agent.UID))
	})
}
