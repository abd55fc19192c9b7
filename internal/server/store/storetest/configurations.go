package storetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func testVersions(t *testing.T, s store.Store) {
	_, err := s.Configuration(t.Context(), "base")
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = s.ListVersions(t.Context(), "base")
	require.ErrorIs(t, err, store.ErrNotFound)
	first := saveVersion(t, s, "base", "one")
	second := saveVersion(t, s, "base", "\x00\xfftwo\r\n")
	saveVersion(t, s, "a/b", "")
	require.Equal(t, []int{1, 2}, []int{first.Number, second.Number})
	require.Equal(t, fleet.ContentHash([]byte("one")), first.Hash)
	got, err := s.Version(t.Context(), "base", 2)
	require.NoError(t, err)
	require.Equal(t, second, got, "byte for byte")
	_, err = s.Version(t.Context(), "base", 3)
	require.ErrorIs(t, err, store.ErrNotFound)
	versions, err := s.ListVersions(t.Context(), "base")
	require.NoError(t, err)
	require.Len(t, versions, 2)
	require.Equal(t, 2, versions[0].Number, "the newest first")
	require.Empty(t, versions[0].Body)
	all, err := s.ListConfigurations(t.Context())
	require.NoError(t, err)
	require.Equal(t, []fleet.Configuration{
		{Name: "a/b", Latest: 1, CreatedAt: Start, UpdatedAt: Start}, {Name: "base", Latest: 2, CreatedAt: Start, UpdatedAt: Start},
	}, all)

	v := fleet.Version{Configuration: "base", Body: []byte("three")}
	_, err = s.SaveVersion(t.Context(), v, 1)
	require.ErrorIs(t, err, store.ErrConflict)
	_, err = s.SaveVersion(t.Context(), v, 0)
	require.ErrorIs(t, err, store.ErrConflict)
	v, err = s.SaveVersion(t.Context(), v, 2, fleet.Event{Kind: fleet.ConfigurationSaved, Configuration: "base"})
	require.NoError(t, err)
	require.Equal(t, 3, v.Number)
	require.Equal(t, 3, events(t, s, store.EventQuery{Configuration: "base"})[0].Version)
	v.Configuration = "../x"
	_, err = s.SaveVersion(t.Context(), v, store.AnyVersion)
	require.ErrorIs(t, err, store.ErrInvalid)
}

func testDeletedConfigurations(t *testing.T, s store.Store) {
	require.ErrorIs(t, s.DeleteConfiguration(t.Context(), "base"), store.ErrNotFound)
	saveVersion(t, s, "base", "one")
	r := newRollout(t, s, "r1", "base", 1)
	require.NoError(t, s.CreateRollout(t.Context(), r))
	require.ErrorIs(t, s.DeleteConfiguration(t.Context(), "base"), store.ErrConflict)
	_, err := r.Abort(Start, "anna")
	require.NoError(t, err)
	require.NoError(t, s.SaveRollout(t.Context(), r))
	require.NoError(t, s.DeleteConfiguration(t.Context(), "base"))
	require.ErrorIs(t, s.DeleteConfiguration(t.Context(), "base"), store.ErrNotFound)
	_, err = s.Version(t.Context(), "base", 1)
	require.ErrorIs(t, err, store.ErrNotFound)
	v, err := s.SaveVersion(t.Context(), fleet.Version{Configuration: "base", CreatedAt: Start.Add(time.Hour)}, 0)
	require.NoError(t, err)
	require.Equal(t, 2, v.Number, "a version is never two things")
	c, err := s.Configuration(t.Context(), "base")
	require.NoError(t, err)
	require.Equal(t, Start.Add(time.Hour), c.CreatedAt)
}

func testRollouts(t *testing.T, s store.Store) {
	saveVersion(t, s, "base", "one")
	saveVersion(t, s, "other", "one")
	r := newRollout(t, s, "r1", "base", 1)
	require.NoError(t, s.CreateRollout(t.Context(), r, fleet.Event{Kind: fleet.RolloutCreated, Rollout: "r1", Time: Start}))
	r.Targets[UID(1)] = &fleet.Target{Phase: fleet.PhaseAssigned, Wave: 1, Since: time.Second}
	r.State = fleet.RolloutRunning
	require.NoError(t, s.SaveRollout(t.Context(), r))
	got, err := s.Rollout(t.Context(), "r1")
	require.NoError(t, err)
	require.Equal(t, r, got)
	later := newRollout(t, s, "r2", "other", 1)
	later.CreatedAt = Start.Add(time.Second)
	require.NoError(t, s.CreateRollout(t.Context(), later))

	r.State, r.FinishedAt = fleet.RolloutDone, Start.Add(time.Minute)
	r.To.Salt = "r1"
	require.NoError(t, s.SaveRollout(t.Context(), r, fleet.Event{Kind: fleet.RolloutSucceeded, Rollout: "r1", Time: Start}))
	c, err := s.Configuration(t.Context(), "base")
	require.NoError(t, err)
	require.Equal(t, fleet.Release{Version: 1, Salt: "r1"}, c.Released, "success releases the version")
	require.Len(t, events(t, s, store.EventQuery{Rollout: "r1"}), 2)

	for want, q := range map[string]store.RolloutQuery{"r2 r1 ": {}, "r2 ": {Unfinished: true}, "r1 ": {Configuration: "base"}, "": {Configuration: "base", Unfinished: true}} {
		all, err := s.ListRollouts(t.Context(), q)
		require.NoError(t, err)
		ids := ""
		for _, r := range all {
			ids += r.ID + " "
		}
		require.Equal(t, want, ids)
	}
}

func testRolloutConflicts(t *testing.T, s store.Store) {
	_, err := s.Rollout(t.Context(), "r1")
	require.ErrorIs(t, err, store.ErrNotFound)
	saveVersion(t, s, "base", "one")
	saveVersion(t, s, "base", "two")
	r := newRollout(t, s, "r1", "base", 1)
	require.NoError(t, s.CreateRollout(t.Context(), r))
	require.ErrorIs(t, s.CreateRollout(t.Context(), newRollout(t, s, "r2", "base", 2)), store.ErrUnfinished, "one at a time")

	stale, err := s.Rollout(t.Context(), "r1")
	require.NoError(t, err)
	r.State = fleet.RolloutDone
	require.NoError(t, s.SaveRollout(t.Context(), r))
	stale.State = fleet.RolloutWasAborted
	require.ErrorIs(t, s.SaveRollout(t.Context(), stale, fleet.Event{Kind: fleet.RolloutAborted}), store.ErrConflict)
	require.Empty(t, events(t, s, store.EventQuery{}), "no event of what did not happen")

	require.ErrorIs(t, s.CreateRollout(t.Context(), newRollout(t, s, "r1", "base", 2)), store.ErrConflict, "the id is taken")
	outdated := newRollout(t, s, "r3", "base", 2)
	outdated.From = fleet.Release{}
	require.ErrorIs(t, s.CreateRollout(t.Context(), outdated), store.ErrConflict, "another version was released since")
	unknown := newRollout(t, s, "r4", "base", 2)
	unknown.To.Version = 3
	require.ErrorIs(t, s.CreateRollout(t.Context(), unknown), store.ErrNotFound)
}
