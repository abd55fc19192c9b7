package control

import (
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func TestRolloutSucceeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a, other := w.agent(map[string]string{"service.name": "x", "env": "prod"}), w.agent(map[string]string{"env": "stage"})
	a.hello()
	other.hello()
	w.saved("base", "env=prod", "a: 1\n")
	a.poll()
	require.Zero(t, a.offers, "saving touches nobody")

	id := w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	require.Equal(t, map[string]string{"0000-base": "a: 1\n"}, a.files())
	a.applied()
	w.untilRollout(id, fleet.RolloutDone)
	other.poll()
	require.Zero(t, other.offers, "the selector does not match")

	stored := a.stored()
	require.Equal(t, fleet.Healthy, stored.State())
	require.Equal(t, a.hash(), stored.RemoteConfig.ReportedHash)
	require.Equal(t, []fleet.Kind{
		fleet.AgentConnected, fleet.RolloutAssigned, fleet.AgentOffered, fleet.AgentApplied, fleet.RolloutApplied,
	}, w.kinds(a.uid.String()))

	late := w.agent(map[string]string{"env": "prod"})
	late.hello()
	require.Equal(t, map[string]string{"0000-base": "a: 1\n"}, late.files(), "an agent that matches later gets it with the first answer")
}

func TestRolloutGoesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a, b := w.agent(map[string]string{"n": "1"}), w.agent(map[string]string{"n": "2"})
	a.hello()
	b.hello()
	w.saved("base", "", "good")
	id := w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	b.untilOffered()
	a.applied()
	b.applied()
	w.untilRollout(id, fleet.RolloutDone)
	good := a.hash()

	w.saved("base", "", "bad")
	id = w.rollOut("base", fleet.RolloutSpec{Canary: fleet.Amount{Count: 1}})
	canary, rest := a, b
	w.until("an offer", func() (bool, any) {
		for _, pair := range [][2]*testAgent{{a, b}, {b, a}} {
			if pair[0].poll(); pair[0].offers == 2 {
				canary, rest = pair[0], pair[1]
				return true, nil
			}
		}
		return false, nil
	})
	bad := canary.hash()
	canary.become(protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, "no such component")
	r := w.untilRollout(id, fleet.RolloutTakenBack)
	require.Contains(t, r.Message, "no such component")
	canary.untilOffered()
	require.Equal(t, good, canary.hash(), "returned to the very hash that it had applied")
	canary.applied()
	rest.poll()
	require.Equal(t, 1, rest.offers, "the others were never touched")

	w.rollOut("base", fleet.RolloutSpec{})
	rest.untilOffered()
	for range 3 {
		canary.poll()
	}
	require.Equal(t, 3, canary.offers, "a hash that failed is not offered again")
	require.NotEqual(t, bad, canary.hash())
	require.Equal(t, bad, rest.hash())
}

func TestServerRestartsDuringRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(map[string]string{"n": "1"})
	a.hello()
	w.saved("base", "", "good")
	id := w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	w.restart()
	stored := a.stored()
	require.Equal(t, fleet.Disconnected, stored.State())
	a.applied() // compressed, so the new server asks for everything
	answer := a.hello()
	require.Zero(t, answer.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState))
	a.applied()
	w.untilRollout(id, fleet.RolloutDone)
	require.Equal(t, 1, a.offers)
}

func TestDeletedConfigurationIsTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	w.saved("base", "", "x")
	id := w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	require.ErrorIs(t, w.DeleteConfiguration(t.Context(), "test", "base"), store.ErrConflict)
	a.applied()
	w.untilRollout(id, fleet.RolloutDone)
	require.NoError(t, w.DeleteConfiguration(t.Context(), "test", "base"))
	a.untilOffered()
	require.Empty(t, a.files())
}

func TestPauseResumeAbort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.saved("base", "", "x")
	a, b := w.agent(nil), w.agent(nil)
	a.hello()
	b.hello()
	id := w.rollOut("base", fleet.RolloutSpec{Canary: fleet.Amount{Count: 1}})
	w.until("the canary", func() (bool, any) {
		a.poll()
		b.poll()
		return a.offers+b.offers == 1, nil
	})
	if b.offers == 1 {
		a, b = b, a
	}
	_, err := w.PauseRollout(t.Context(), "test", id)
	require.NoError(t, err)
	a.applied()
	for range 5 {
		w.round(t.Context())
		b.poll()
	}
	require.Zero(t, b.offers)
	_, err = w.PauseRollout(t.Context(), "test", id)
	require.ErrorIs(t, err, fleet.ErrRolloutState)
	_, err = w.ResumeRollout(t.Context(), "test", id)
	require.NoError(t, err)
	b.untilOffered()
	_, err = w.AbortRollout(t.Context(), "test", id)
	require.NoError(t, err)
	a.untilOffered()
	b.untilOffered()
	require.Empty(t, a.files(), "there was none before")
	require.Empty(t, b.files())
	_, err = w.AbortRollout(t.Context(), "test", id)
	require.ErrorIs(t, err, fleet.ErrRolloutState)
	_, err = w.AbortRollout(t.Context(), "test", "nope")
	require.ErrorIs(t, err, store.ErrNotFound)
}

// What failed is not offered again by a server that was killed before it wrote that: it hears the agent out first.
func TestFailureThatWasNotWritten(t *testing.T) {
	t.Parallel()
	broken := &brokenStore{}
	w := newWorld(t, func(o *Options) { broken.Store, o.Store = o.Store, broken })
	a := w.agent(nil)
	a.hello()
	w.saved("base", "", "bad")
	w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	broken.fail.Store(true)
	a.become(protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, "no")
	require.Error(t, w.Stop(t.Context()), "the disk is full until the end")
	require.NoError(t, w.db.Close())
	broken.fail.Store(false)
	w.start()
	a.poll() // of which nothing is known
	require.Equal(t, 1, a.offers)
	a.hello()
	require.Equal(t, 1, a.offers)
}

// What failed on an agent is offered again when somebody insists, under another hash, and not before.
func TestForcedRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	w.saved("base", "", "x")
	id := w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	failed := a.hash()
	a.become(protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, "no")
	w.untilRollout(id, fleet.RolloutTakenBack)
	a.untilOffered() // the empty set that it had before
	a.applied()
	offers := a.offers
	id = w.rollOut("base", fleet.RolloutSpec{})
	w.untilRollout(id, fleet.RolloutTakenBack)
	a.poll()
	require.Equal(t, offers, a.offers)
	id = w.rollOut("base", fleet.RolloutSpec{Force: true})
	a.untilOffered()
	require.NotEqual(t, failed, a.hash())
	require.Equal(t, map[string]string{"0000-base": "x"}, a.files())
	a.applied()
	w.untilRollout(id, fleet.RolloutDone)
}
