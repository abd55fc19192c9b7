package fleet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrRolloutState is the error of a command that the rollout's state does not allow.
var ErrRolloutState = errors.New("not possible")

// RolloutState is where a rollout stands.
type RolloutState string

// The states; the last three are final.
const (
	RolloutPending    RolloutState = "pending"
	RolloutRunning    RolloutState = "running"
	RolloutIsPaused   RolloutState = "paused"
	RolloutDone       RolloutState = "succeeded"
	RolloutTakenBack  RolloutState = "rolled_back"
	RolloutWasAborted RolloutState = "aborted"
)

// Final says whether nothing more will happen.
func (s RolloutState) Final() bool {
	return s == RolloutDone || s == RolloutTakenBack || s == RolloutWasAborted
}

// Rollout brings one version of a configuration to the agents, in waves. It is the whole state: stored after each Step that
// changed it, and read back, it goes on as if nothing had happened. DESIGN.md has its states and rules.
type Rollout struct {
	ID            string      `json:"id"`
	Configuration string      `json:"configuration"`
	From          Release     `json:"from"`
	To            Release     `json:"to"`
	Spec          RolloutSpec `json:"spec"`
	Actor         string      `json:"actor,omitempty"`

	State RolloutState `json:"state"`
	// Message says why it ended or what it waits for, for people.
	Message    string    `json:"message,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// Wave counts the waves begun, the canary included.
	Wave int `json:"wave"`
	// Targets are the agents that were given the version, by UID.
	Targets map[string]*Target `json:"targets"`

	// Clock runs while somebody looks: Step adds the time since the last Step, 10 s at most. It begins at 1 ns, so that a zero
	// below means never.
	Clock time.Duration `json:"clock"`
	// HoldUntil is when the next wave may begin at the earliest.
	HoldUntil time.Duration `json:"hold_until,omitempty"`
	SteppedAt time.Time     `json:"stepped_at,omitzero"`

	// Revision is the store's, for the detection of conflicts.
	Revision int64 `json:"-"`
}

// Target is an agent that was given the new version.
type Target struct {
	Phase Phase `json:"phase"`
	// Wave is the number of the wave it was given the version in, from 1.
	Wave int `json:"wave"`
	// Away: it was not connected then, so that the wave does not wait for it.
	Away bool `json:"away,omitempty"`
	// Ill: it was unhealthy before, so that its health says nothing about the version.
	Ill bool `json:"ill,omitempty"`
	// Hash names the set that it applied or that it failed with.
	Hash    string `json:"hash,omitempty"`
	Message string `json:"message,omitempty"`
	// Since is when it was first both connected and assigned, then when it applied; SteadySince since when it was not seen
	// unhealthy, UnhealthySince since when it was. All by the rollout's clock.
	Since          time.Duration `json:"since,omitempty"`
	SteadySince    time.Duration `json:"steady_since,omitempty"`
	UnhealthySince time.Duration `json:"unhealthy_since,omitempty"`
}

// Phase is how far an agent is with the new version.
type Phase string

// The phases of a target.
const (
	// PhaseAssigned: it is given the version, and has not applied it.
	PhaseAssigned Phase = "assigned"
	// PhaseApplied: it runs it, and is being watched.
	PhaseApplied Phase = "applied"
	// PhaseGood: it ran it through the soak.
	PhaseGood Phase = "good"
	// PhaseFailed: it counts against the budget.
	PhaseFailed Phase = "failed"
	// PhaseGone: it was forgotten, or no version concerns it any more.
	PhaseGone Phase = "gone"
)

// NewRollout makes a pending rollout of version to of the configuration, and the event of it. Its id must be unique: it also
// decides the order of the agents.
func NewRollout(id string, c Configuration, to int, spec RolloutSpec, actor string, now time.Time) (*Rollout, Event, error) {
	if to < 1 || to > c.Latest {
		return nil, Event{}, fmt.Errorf("%s has no version %d: the newest is %d", c.Name, to, c.Latest)
	}
	if err := spec.Validate(); err != nil {
		return nil, Event{}, err
	}
	if spec.Timeout == 0 {
		spec.Timeout = DefaultTimeout
	}
	r := &Rollout{
		ID: id, Configuration: c.Name, From: c.Released, To: Release{Version: to}, Spec: spec, Actor: actor,
		State: RolloutPending, CreatedAt: now, UpdatedAt: now, Targets: map[string]*Target{}, Clock: 1,
	}
	if spec.Force {
		r.To.Salt = id
	} else if to == c.Released.Version {
		r.To.Salt = c.Released.Salt
	}
	return r, r.event(now, actor, RolloutCreated, ""), nil
}

// Gives says whether the agent gets the new version now. Once the rollout is over every agent gets the configuration's
// released version, which after success is the new one.
func (r *Rollout) Gives(uid string) bool {
	return !r.State.Final() && r.Targets[uid] != nil
}

// Failures counts the agents that failed.
func (r *Rollout) Failures() int {
	n := 0
	for _, t := range r.Targets {
		if t.Phase == PhaseFailed {
			n++
		}
	}
	return n
}

// Pause keeps the rollout from giving the version to more agents. Failures still count, and take everything back when the
// budget is spent.
func (r *Rollout) Pause(now time.Time, actor string) (Event, error) {
	if r.State != RolloutRunning && r.State != RolloutPending {
		return Event{}, fmt.Errorf("rollout %s is %s: to pause it is %w", r.ID, r.State, ErrRolloutState)
	}
	r.State, r.UpdatedAt = RolloutIsPaused, now
	return r.event(now, actor, RolloutPaused, ""), nil
}

// Resume lets a paused rollout go on.
func (r *Rollout) Resume(now time.Time, actor string) (Event, error) {
	if r.State != RolloutIsPaused {
		return Event{}, fmt.Errorf("rollout %s is %s: to resume it is %w", r.ID, r.State, ErrRolloutState)
	}
	r.State, r.UpdatedAt = RolloutRunning, now
	if r.Wave == 0 {
		r.State = RolloutPending
	}
	return r.event(now, actor, RolloutResumed, ""), nil
}

// Abort ends the rollout. What it touched gets the previous version again.
func (r *Rollout) Abort(now time.Time, actor string) ([]Event, error) {
	if r.State.Final() {
		return nil, fmt.Errorf("rollout %s is %s: to abort it is %w", r.ID, r.State, ErrRolloutState)
	}
	return r.takeBack(now, actor, RolloutWasAborted, RolloutAborted, "aborted by "+actor), nil
}

// takeBack ends the rollout without success.
func (r *Rollout) takeBack(now time.Time, actor string, state RolloutState, kind Kind, message string) []Event {
	r.State, r.Message, r.UpdatedAt, r.FinishedAt = state, message, now, now
	events := []Event{r.event(now, actor, kind, message)}
	for _, uid := range slices.Sorted(maps.Keys(r.Targets)) {
		e := r.event(now, actor, RolloutReturned, message)
		e.Agent, e.Version = uid, r.From.Version
		events = append(events, e)
	}
	return events
}

func (r *Rollout) event(now time.Time, actor string, kind Kind, message string) Event {
	return Event{
		Time: now, Actor: actor, Kind: kind, Configuration: r.Configuration, Version: r.To.Version, Rollout: r.ID, Message: message,
	}
}

// Clone returns a copy that shares nothing.
func (r *Rollout) Clone() *Rollout {
	c := *r
	c.Spec.Waves = slices.Clone(r.Spec.Waves)
	c.Targets = make(map[string]*Target, len(r.Targets))
	for uid, t := range r.Targets {
		copied := *t
		c.Targets[uid] = &copied
	}
	return &c
}
