package fleet

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAgentsAwayGetItInTheLastWave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, RolloutSpec{Canary: Amount{Count: 2}, Waves: []int{50}, Soak: 5 * time.Second})
	for _, a := range w.agents[:4] {
		a.Connected, a.LastSeen = false, start.Add(-time.Hour)
	}
	w.run(time.Minute, func(a *Agent) { apply(w.now, a) })
	require.Equal(t, RolloutDone, w.rollout.State, w.rollout.Message)
	require.Equal(t, 10, w.touched())
	require.True(t, w.rollout.Targets[w.agents[0].UID].Away)
	w.agents[0].Connected = true
	require.True(t, w.agents[0].ShouldOffer(), "it gets the version when it returns")
}

func TestNoAgentThatIsAwayIsACanary(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, RolloutSpec{Canary: Amount{Count: 4}})
	for _, a := range w.agents[2:] {
		a.Connected, a.LastSeen = false, start.Add(-time.Hour)
	}
	w.step()
	require.Equal(t, 2, w.touched(), "as many as there are")
}

func TestARolloutWaitsForSomebody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, RolloutSpec{Canary: Amount{Count: 1}})
	for _, a := range w.agents {
		a.Connected = false
	}
	w.run(10*time.Minute, func(*Agent) {})
	require.Equal(t, RolloutPending, w.rollout.State)
	require.Equal(t, "waits for an agent to connect", w.rollout.Message)

	for _, a := range w.agents[:3] {
		a.Connected = true
	}
	for _, a := range w.agents[3:] {
		a.LastSeen = w.now // just lost: 7 of 10
	}
	w.step()
	require.Contains(t, w.rollout.Message, "waits: 7 agents have just gone, 3 are here")
	w.run(10*time.Minute, func(a *Agent) { apply(w.now, a) })
	require.Equal(t, RolloutDone, w.rollout.State)

	nobody := newWorld(t, 0, RolloutSpec{})
	nobody.step()
	require.Equal(t, RolloutDone, nobody.rollout.State, "a version that concerns nobody is released")
	require.Equal(t, "it concerns no agent that is known; those that come get it", nobody.rollout.Message)
}

// TestTimeWithoutServerDoesNotCount: an hour without the server is not an hour in which agents did not answer, and no wave
// begins before they had time to come back.
func TestTimeWithoutServerDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, RolloutSpec{Canary: Amount{Count: 1}})
	w.step()
	for _, a := range w.agents {
		a.Connected = false
	}
	w.now = w.now.Add(time.Hour)
	w.step()
	require.Equal(t, RolloutRunning, w.rollout.State)
	back := w.now
	for _, a := range w.agents {
		a.Connected = true
	}
	w.run(10*time.Minute, func(a *Agent) { apply(w.now, a) })
	require.Equal(t, RolloutDone, w.rollout.State)
	require.GreaterOrEqual(t, w.now.Sub(back), settleTime)
}

func TestForceOffersWhatFailed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, RolloutSpec{})
	w.run(time.Minute, func(a *Agent) { refuse(w.now, a) })
	require.Equal(t, RolloutTakenBack, w.rollout.State)
	require.NotContains(t, w.rollout.Message, "before")
	for force, want := range map[bool]RolloutState{false: RolloutTakenBack, true: RolloutDone} {
		again := newWorld(t, 1, RolloutSpec{Force: force})
		refusal := w.agents[0].RemoteConfig.Refused[0]
		refusal.At = start.Add(-time.Hour)
		again.agents[0].RemoteConfig.Refused = []Refusal{refusal}
		again.run(time.Minute, func(a *Agent) { apply(again.now, a) })
		require.Equal(t, want, again.rollout.State, again.rollout.Message)
		if !force {
			require.Contains(t, again.rollout.Message, "failed on it before, and is not offered it again without force; then it said: no such processor")
		}
	}
}

func TestForgottenAgentsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, RolloutSpec{})
	w.step()
	forgotten := w.agents[0]
	w.agents = w.agents[1:]
	w.run(10*time.Second, func(a *Agent) { apply(w.now, a) })
	require.Equal(t, RolloutDone, w.rollout.State)
	require.Equal(t, PhaseGone, w.rollout.Targets[forgotten.UID].Phase)
}

// TestTwoRolloutsDoNotSpoilEachOther: what an agent has applied for one is not blamed on it when the other's set fails.
func TestTwoRolloutsDoNotSpoilEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, RolloutSpec{Soak: time.Hour})
	w.run(5*time.Second, func(a *Agent) { apply(w.now, a) })
	second, _, err := NewRollout("r2", Configuration{Name: "extra", Latest: 1}, 1, RolloutSpec{MaxFailures: 1, Soak: time.Hour}, "anna", w.now)
	require.NoError(t, err)
	w.deployments = append(w.deployments, Deployment{Rollout: second, Next: placed("extra", "", 9, "bad")})
	second.Step(w.now, Candidates(w.agents, w.deployments, "r2"))
	w.run(5*time.Second, func(a *Agent) { refuse(w.now, a) })
	require.Len(t, w.agents[0].RemoteConfig.Refused, 1, "the set of both failed")
	require.Equal(t, RolloutRunning, w.rollout.State)
	require.Zero(t, w.rollout.Failures())
	second.Step(w.now, Candidates(w.agents, w.deployments, "r2"))
	require.Equal(t, 1, second.Failures())
}

func TestSpecs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Amount{"": {}, "3": {Count: 3}, "10%": {Percent: 10}} {
		a, err := ParseAmount(text)
		require.NoError(t, err)
		require.Equal(t, want, a)
	}
	for _, text := range []string{"-1", "101%", "x", "%", "1.5"} {
		_, err := ParseAmount(text)
		require.Error(t, err, text)
	}
	for _, spec := range []RolloutSpec{{Waves: []int{50, 50}}, {Waves: []int{0}}, {Waves: []int{101}}, {Soak: -1}, {MaxFailures: -1}, {Canary: Amount{Count: 1, Percent: 1}}} {
		require.Error(t, spec.Validate())
	}
	_, _, err := NewRollout("r", Configuration{Name: "base", Latest: 2}, 3, RolloutSpec{}, "", start)
	require.ErrorContains(t, err, "has no version 3")
	require.Equal(t, 1, Amount{Percent: 1}.of(3), "rounded up")
}

// TestRandomFleets: whatever agents do, a rollout ends, fails no more agents than its budget and the wave in flight, and when it
// was taken back every agent that it touched is to run the previous version. world.step holds each step against one that was
// resumed from the row.
func TestRandomFleets(t *testing.T) {
	t.Parallel()
	ends := map[RolloutState]int{}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		spec := RolloutSpec{
			Canary: Amount{Count: random.IntN(4)}, Waves: [][]int{nil, {10, 50}, {30}}[random.IntN(3)],
			Soak: time.Duration(random.IntN(10)) * time.Second, MaxFailures: random.IntN(4), Timeout: 30 * time.Second,
		}
		w := newWorld(t, 1+random.IntN(25), spec)
		bad, away, biggest, wave := []float64{0, 0.05, 0.2, 1}[random.IntN(4)], random.Float64()*0.1, 0, 0
		previous := 0
		w.run(time.Hour, func(a *Agent) {
			if w.rollout.Wave != wave {
				wave, biggest, previous = w.rollout.Wave, max(biggest, w.touched()-previous), w.touched()
			}
			if a.Connected = random.Float64() > away; !a.Connected || random.IntN(3) == 0 {
				return
			}
			if a.ShouldOffer() && random.Float64() < bad {
				refuse(w.now, a)
			} else {
				apply(w.now, a)
			}
		})
		require.True(t, w.rollout.State.Final(), "seed %d: %s %s", seed, w.rollout.State, w.rollout.Message)
		biggest = max(biggest, w.touched()-previous)
		require.LessOrEqual(t, w.rollout.Failures(), spec.MaxFailures+biggest, "seed %d", seed)
		want := 2
		if w.rollout.State == RolloutTakenBack {
			want = 1
			require.Greater(t, w.rollout.Failures(), spec.MaxFailures)
		}
		for uid := range w.rollout.Targets {
			for _, a := range w.agents {
				if a.UID == uid {
					require.Equal(t, want, Desired(a, w.deployments).Files[0].Version, "seed %d", seed)
				}
			}
		}
		ends[w.rollout.State]++
	}
	require.Greater(t, ends[RolloutDone], 30, ends)
	require.Greater(t, ends[RolloutTakenBack], 30, ends)
}
