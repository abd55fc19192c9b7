package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// world is a fleet, one configuration, and a rollout of its version 2, driven a second at a time.
type world struct {
	t           *testing.T
	now         time.Time
	agents      []*Agent
	deployments []Deployment
	rollout     *Rollout
	events      []Event
}

func newWorld(t *testing.T, agents int, spec RolloutSpec) *world {
	t.Helper()
	w := &world{t: t, now: start}
	for i := range agents {
		w.agents = append(w.agents, &Agent{
			UID: fmt.Sprintf("00000000-0000-7000-8000-%012d", i), Identifying: map[string]string{"env": "prod"},
			Capabilities: manageable, Connected: true, LastSeen: start, Health: &Health{Healthy: true},
		})
	}
	r, created, err := NewRollout("r1", Configuration{Name: "base", Latest: 2, Released: Release{Version: 1}}, 2, spec, "anna", start)
	require.NoError(t, err)
	require.Equal(t, RolloutCreated, created.Kind)
	next := placed("base", "env=prod", 0, "two")
	next.Version.Number, next.Salt = 2, r.To.Salt
	w.rollout = r
	w.deployments = []Deployment{{Released: placed("base", "env=prod", 0, "one"), Rollout: r, Next: next}}
	for _, a := range w.agents {
		hash := Desired(a, w.deployments).Hash
		a.RemoteConfig = RemoteConfig{DesiredHash: hash, OfferedHash: hash, ReportedHash: hash, Status: Applied}
	}
	return w
}

// step lets the rollout look, after it was written and read back, and brings the desired hashes up to date.
func (w *world) step() []Event {
	w.t.Helper()
	row, err := json.Marshal(w.rollout)
	require.NoError(w.t, err)
	resumed := new(Rollout)
	require.NoError(w.t, json.Unmarshal(row, resumed))
	candidates := Candidates(w.agents, w.deployments, w.rollout.ID)
	before, failures := w.rollout.Clone(), len(candidates)
	events, changed := w.rollout.Step(w.now, candidates)
	slices.Reverse(candidates)
	again, changedAgain := resumed.Step(w.now, candidates)
	require.Equal(w.t, w.rollout, resumed, "the stored row alone decides, whatever the order of the agents")
	require.Equal(w.t, events, again)
	require.Equal(w.t, changed, changedAgain)
	if !changed {
		before.Clock, before.SteppedAt = w.rollout.Clock, w.rollout.SteppedAt
		require.Equal(w.t, before, w.rollout, "a change was not told of; %d agents", failures)
		require.Empty(w.t, events)
	}
	w.refresh()
	w.events = append(w.events, events...)
	return events
}

func (w *world) refresh() {
	if w.rollout.State == RolloutDone {
		w.deployments[0].Released = w.deployments[0].Next
	}
	for _, a := range w.agents {
		a.RemoteConfig.DesiredHash = Desired(a, w.deployments).Hash
		if a.Connected {
			a.LastSeen = w.now
		}
	}
}

// run steps each second for at most limit; agents answer as they are told to before each step.
func (w *world) run(limit time.Duration, answer func(*Agent)) {
	w.t.Helper()
	for range int(limit / time.Second) {
		w.step()
		if w.rollout.State.Final() {
			return
		}
		w.now = w.now.Add(time.Second)
		for _, a := range w.agents {
			answer(a)
		}
	}
}

func (w *world) touched() int { return len(w.rollout.Targets) }

func (w *world) kinds() []Kind {
	var kinds []Kind
	for _, e := range w.events {
		if e.Agent == "" {
			kinds = append(kinds, e.Kind)
		}
	}
	return kinds
}

func apply(now time.Time, a *Agent) {
	if hash := a.RemoteConfig.DesiredHash; a.ShouldOffer() {
		a.RemoteConfig.Offered(now, hash)
		a.RemoteConfig.Report(now, hash, Applied, "")
	}
}

func refuse(now time.Time, a *Agent) {
	if hash := a.RemoteConfig.DesiredHash; a.ShouldOffer() {
		old := a.RemoteConfig.ReportedHash
		a.RemoteConfig.Offered(now, hash)
		a.RemoteConfig.Report(now, hash, Failed, "no such processor")
		a.RemoteConfig.Report(now, old, Applied, "")
	}
}

func TestRolloutInWaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20, RolloutSpec{Canary: Amount{Count: 1}, Waves: []int{10, 50}, Soak: 10 * time.Second})
	w.step()
	require.Equal(t, RolloutRunning, w.rollout.State)
	sizes := map[int]bool{}
	w.run(time.Minute, func(a *Agent) {
		apply(w.now, a)
		sizes[w.touched()] = true
	})
	require.Equal(t, map[int]bool{1: true, 2: true, 10: true, 20: true}, sizes)
	require.Equal(t, RolloutDone, w.rollout.State, w.rollout.Message)
	require.Equal(t, []Kind{RolloutStarted, RolloutWave, RolloutWave, RolloutWave, RolloutWave, RolloutSucceeded}, w.kinds())
	require.GreaterOrEqual(t, w.now.Sub(start), 40*time.Second, "each wave soaks")
	for _, a := range w.agents {
		require.Equal(t, a.RemoteConfig.DesiredHash, a.RemoteConfig.ReportedHash)
		require.Equal(t, 2, Desired(a, w.deployments).Files[0].Version)
	}
	events, changed := w.rollout.Step(w.now, nil)
	require.Empty(t, events)
	require.False(t, changed)
}

func TestRolloutGoesBackByItself(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(w *world, a *Agent)
		why    string
	}{
		"refused": {func(w *world, a *Agent) { refuse(w.now, a) }, "no such processor"},
		"unhealthy": {func(w *world, a *Agent) {
			apply(w.now, a)
			a.Health = &Health{Healthy: !w.rollout.Gives(a.UID), LastError: "exporter is down"}
		}, "unhealthy: exporter is down"},
		"no answer": {func(*world, *Agent) {}, "did not apply within 5m0s; connected: true"},
		"gone":      {func(w *world, a *Agent) { a.Connected = !w.rollout.Gives(a.UID) }, "did not apply within 5m0s; connected: false"},
		"applied, then gone": {func(w *world, a *Agent) {
			apply(w.now, a)
			a.Connected = w.rollout.Targets[a.UID] == nil || w.rollout.Targets[a.UID].Phase == PhaseAssigned
		}, "applied, but was not connected and healthy through a soak of 10s within 5m10s; connected: false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 10, RolloutSpec{Canary: Amount{Percent: 20}, Soak: 10 * time.Second})
			w.run(6*time.Minute, func(a *Agent) { c.answer(w, a) })
			require.Equal(t, RolloutTakenBack, w.rollout.State)
			require.Contains(t, w.rollout.Message, c.why)
			require.Equal(t, 2, w.touched(), "no more than the canaries")
			for _, a := range w.agents {
				require.Equal(t, 1, Desired(a, w.deployments).Files[0].Version)
			}
			returned := slices.DeleteFunc(slices.Clone(w.events), func(e Event) bool { return e.Kind != RolloutReturned })
			require.Len(t, returned, 2)
			require.Equal(t, 1, returned[0].Version)
		})
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	for failing, want := range map[int]RolloutState{0: RolloutDone, 2: RolloutDone, 3: RolloutTakenBack} {
		w := newWorld(t, 10, RolloutSpec{MaxFailures: 2})
		w.run(time.Minute, func(a *Agent) {
			if a.UID < w.agents[failing].UID {
				refuse(w.now, a)
			} else {
				apply(w.now, a)
			}
		})
		require.Equal(t, want, w.rollout.State, "%d fail", failing)
	}
}

func TestIllnessFromBeforeDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, RolloutSpec{Canary: Amount{Count: 3}, Soak: 10 * time.Second})
	w.agents[2].Health = &Health{LastError: "disk"}
	w.step()
	require.NotContains(t, w.rollout.Targets, w.agents[2].UID, "no canary while there are healthy ones")
	w.run(time.Minute, func(a *Agent) { apply(w.now, a) })
	require.Equal(t, RolloutDone, w.rollout.State, w.rollout.Message)
}

func TestAShortIllnessDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, RolloutSpec{Soak: 10 * time.Second})
	w.run(time.Minute, func(a *Agent) {
		apply(w.now, a)
		s := w.now.Sub(start)
		a.Health = &Health{Healthy: s < 3*time.Second || s > 6*time.Second}
	})
	require.Equal(t, RolloutDone, w.rollout.State, w.rollout.Message)
	require.GreaterOrEqual(t, w.now.Sub(start), 17*time.Second, "the soak begins anew")
}

func TestPauseResumeAbort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, RolloutSpec{Canary: Amount{Count: 1}})
	_, err := w.rollout.Resume(w.now, "anna")
	require.ErrorIs(t, err, ErrRolloutState)
	w.step()
	_, err = w.rollout.Pause(w.now, "anna")
	require.NoError(t, err)
	_, err = w.rollout.Pause(w.now, "anna")
	require.ErrorIs(t, err, ErrRolloutState)
	w.run(time.Minute, func(a *Agent) { apply(w.now, a) })
	require.Equal(t, 1, w.touched(), "nothing more is given out")
	require.Equal(t, 2, Desired(w.first(), w.deployments).Files[0].Version, "what has it keeps it")
	_, err = w.rollout.Resume(w.now, "anna")
	require.NoError(t, err)
	w.step()
	require.Equal(t, 10, w.touched())
	events, err := w.rollout.Abort(w.now, "anna")
	require.NoError(t, err)
	require.Len(t, events, 11)
	require.Equal(t, RolloutWasAborted, w.rollout.State)
	require.Equal(t, 1, Desired(w.first(), w.deployments).Files[0].Version)
	_, err = w.rollout.Abort(w.now, "anna")
	require.ErrorIs(t, err, ErrRolloutState)
}

// first is an agent that has the new version.
func (w *world) first() *Agent {
	return w.agents[slices.IndexFunc(w.agents, func(a *Agent) bool { return w.rollout.Targets[a.UID] != nil })]
}

func TestAPausedRolloutStillGoesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, RolloutSpec{Canary: Amount{Count: 1}})
	w.step()
	_, err := w.rollout.Pause(w.now, "anna")
	require.NoError(t, err)
	w.run(10*time.Second, func(a *Agent) { refuse(w.now, a) })
	require.Equal(t, RolloutTakenBack, w.rollout.State)
}
