package storetest

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func testEvents(t *testing.T, s store.Store) {
	for i := range 250 {
		e := fleet.Event{Time: Start.Add(time.Duration(-i)), Kind: fleet.AgentOffered, Agent: UID(i % 2), Actor: "anna", Hash: "h", Message: "m"}
		if i%5 == 0 {
			e.Configuration, e.Rollout = "base", "r1"
		}
		require.NoError(t, s.AppendEvents(t.Context(), e))
	}
	require.NoError(t, s.AppendEvents(t.Context()))
	for _, c := range []struct {
		query store.EventQuery
		want  int
	}{
		{store.EventQuery{}, 250},
		{store.EventQuery{Agent: UID(1)}, 125},
		{store.EventQuery{Configuration: "base"}, 50},
		{store.EventQuery{Rollout: "r1", Agent: UID(0)}, 25},
		{store.EventQuery{Agent: "' OR ''='"}, 0},
	} {
		c.query.Limit = 7
		backwards, last := 0, int64(1<<62)
		for page := events(t, s, c.query); len(page) > 0; page = events(t, s, c.query) {
			for _, e := range page {
				require.Less(t, e.ID, last)
				last = e.ID
				backwards++
			}
			c.query.Before = last
		}
		require.Equal(t, c.want, backwards)
		c.query.Before, c.query.OldestFirst, last = 0, true, 0
		forwards := 0
		for page := events(t, s, c.query); len(page) > 0; page = events(t, s, c.query) {
			for _, e := range page {
				require.Greater(t, e.ID, last)
				last = e.ID
				forwards++
			}
			c.query.After = last
		}
		require.Equal(t, c.want, forwards)
	}
	require.Equal(t, Start.Add(-249), events(t, s, store.EventQuery{Limit: 1})[0].Time, "ordered as appended, whatever their clocks said")
}

func testTokens(t *testing.T, s store.Store) {
	token := store.Token{ID: "t1", Role: "admin", Hash: "aa", Uses: -1, CreatedAt: Start}
	require.NoError(t, s.CreateToken(t.Context(), token))
	require.ErrorIs(t, s.CreateToken(t.Context(), token), store.ErrConflict)
	got, err := s.UseToken(t.Context(), "aa", Start)
	require.NoError(t, err)
	require.Equal(t, token, got)

	limited := store.Token{ID: "t2", Role: "agent", Hash: "bb", Agent: UID(1), Uses: 2, CreatedAt: Start.Add(1), ExpiresAt: Start.Add(time.Hour)}
	require.NoError(t, s.CreateToken(t.Context(), limited))
	_, err = s.UseToken(t.Context(), "bb", Start.Add(time.Hour))
	require.ErrorIs(t, err, store.ErrNotFound, "expired")
	for left := 1; left >= 0; left-- {
		got, err = s.UseToken(t.Context(), "bb", Start)
		require.NoError(t, err)
		require.Equal(t, left, got.Uses)
	}
	_, err = s.UseToken(t.Context(), "bb", Start)
	require.ErrorIs(t, err, store.ErrNotFound, "used up")
	all, err := s.ListTokens(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"t1", "t2"}, []string{all[0].ID, all[1].ID})
	require.NoError(t, s.RevokeToken(t.Context(), "t1"))
	require.ErrorIs(t, s.RevokeToken(t.Context(), "t1"), store.ErrNotFound)
	_, err = s.UseToken(t.Context(), "aa", Start)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.ErrorIs(t, s.CreateToken(t.Context(), store.Token{ID: "t3"}), store.ErrInvalid)
}

func testChanges(t *testing.T, s store.Store) {
	since := revision(t, s)
	fill(t, s, 3)
	saveVersion(t, s, "base", "one")
	require.NoError(t, s.CreateRollout(t.Context(), newRollout(t, s, "r1", "base", 1)))
	gone := NewAgent(0)
	gone.Connected = false
	save(t, s, gone)
	require.NoError(t, s.ForgetAgent(t.Context(), UID(0)))
	changes, err := s.Changes(t.Context(), since, 0)
	require.NoError(t, err)
	last := since
	for i := range changes {
		require.Greater(t, changes[i].Revision, last)
		last = changes[i].Revision
		changes[i].Revision = 0
	}
	require.Equal(t, revision(t, s), last)
	require.Equal(t, []store.Change{
		{Kind: store.ChangedAgent, Key: UID(1)},
		{Kind: store.ChangedAgent, Key: UID(2)},
		{Kind: store.ChangedConfiguration, Key: "base"},
		{Kind: store.ChangedRollout, Key: "r1"},
		{Kind: store.ChangedAgent, Key: UID(0), Deleted: true},
	}, changes, "each thing once, at its last change")
	some, err := s.Changes(t.Context(), since, 2)
	require.NoError(t, err)
	require.Len(t, some, 2)
	none, err := s.Changes(t.Context(), last, 0)
	require.NoError(t, err)
	require.Empty(t, none)
}

func testRetention(t *testing.T, s store.Store) {
	old, back, here := NewAgent(1), NewAgent(2), NewAgent(3)
	old.Connected, back.Connected = false, false
	save(t, s, old, back, here)
	require.NoError(t, s.TouchAgents(t.Context(), map[string]time.Time{back.UID: Start.Add(time.Hour)}))
	for _, at := range []time.Time{Start, Start.Add(time.Hour)} {
		require.NoError(t, s.AppendEvents(t.Context(), fleet.Event{Time: at, Kind: fleet.AgentOffered}))
	}
	pruned, err := s.Prune(t.Context(), store.Retention{})
	require.NoError(t, err)
	require.Equal(t, store.Pruned{}, pruned, "without times everything is kept")
	pruned, err = s.Prune(t.Context(), store.Retention{EventsSince: Start.Add(time.Minute), AgentsSince: Start.Add(time.Minute)})
	require.NoError(t, err)
	require.Equal(t, store.Pruned{Events: 1, Agents: 1}, pruned)
	page, err := s.ListAgents(t.Context(), store.AgentQuery{})
	require.NoError(t, err)
	require.Equal(t, []string{back.UID, here.UID}, []string{page.Agents[0].UID, page.Agents[1].UID})
	newest := events(t, s, store.EventQuery{})
	require.NoError(t, s.AppendEvents(t.Context(), fleet.Event{Time: Start}))
	require.Greater(t, events(t, s, store.EventQuery{Limit: 1})[0].ID, newest[0].ID, "IDs are not given twice")
}

// hostile are texts that a careless store would run, cut, or change.
var hostile = []string{`'; DROP TABLE agents; --`, `" OR ""="`, "a\x00b", "\x00", "\uFFFD\u2028", `\u0000`, `\ufffd`, "%_*?", "$1 ?1 :agent @p", strings.Repeat("ü", 5000), "<script>&"}

func testHostileTexts(t *testing.T, s store.Store) {
	for i, text := range hostile {
		a := NewAgent(i)
		a.Identifying[text], a.NonIdentifying["host.name"] = text, text
		a.Health.LastError, a.RemoteConfig.Error = text, text
		a.Health.Components[text] = fleet.Health{Status: text}
		e := fleet.Event{Time: Start, Kind: fleet.Kind(text), Actor: text, Agent: text, Configuration: text, Rollout: text, Hash: text, Message: text}
		require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{a}, Events: []fleet.Event{e}}))
		got, err := s.Agent(t.Context(), a.UID)
		require.NoError(t, err)
		require.Equal(t, a, got)
		found := events(t, s, store.EventQuery{Agent: text, Configuration: text, Rollout: text})
		require.Len(t, found, 1, "%q", text)
		e.ID = found[0].ID
		require.Equal(t, e, found[0])
		require.NoError(t, s.CreateToken(t.Context(), store.Token{ID: text, Hash: text, Role: text, Uses: -1, CreatedAt: Start}))
		token, err := s.UseToken(t.Context(), text, Start)
		require.NoError(t, err)
		require.Equal(t, text, token.Role)
		_, err = s.Agent(t.Context(), text)
		require.ErrorIs(t, err, store.ErrNotFound)
		_, err = s.Configuration(t.Context(), text)
		require.ErrorIs(t, err, store.ErrNotFound)
		_, err = s.Rollout(t.Context(), text)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	before := revision(t, s)
	for _, spoil := range []func(*fleet.Agent, *fleet.Event){
		func(a *fleet.Agent, _ *fleet.Event) { a.Health.Components["x"] = fleet.Health{LastError: "\xff"} },
		func(a *fleet.Agent, _ *fleet.Event) { a.Health.Components["\xff"] = fleet.Health{} },
		func(a *fleet.Agent, _ *fleet.Event) { a.Identifying["x"] = "\uFFFD\xff" },
		func(a *fleet.Agent, _ *fleet.Event) { a.NonIdentifying["\xff"] = "x" },
		func(a *fleet.Agent, _ *fleet.Event) { a.CustomCapabilities = []string{"x", "a\xc3"} },
		func(_ *fleet.Agent, e *fleet.Event) { e.Agent = "\xff" },
		func(_ *fleet.Agent, e *fleet.Event) { e.Kind = "\xff" },
	} {
		bad, e := NewAgent(100), fleet.Event{Kind: fleet.AgentConnected}
		spoil(&bad, &e)
		batch := store.AgentBatch{Agents: []fleet.Agent{NewAgent(101), bad}, Events: []fleet.Event{e}}
		require.ErrorIs(t, s.SaveAgents(t.Context(), batch), store.ErrInvalid)
	}
	require.ErrorIs(t, s.AppendEvents(t.Context(), fleet.Event{Message: "a\xc3"}), store.ErrInvalid)
	require.Equal(t, before, revision(t, s))
}

func testLargeBodies(t *testing.T, s store.Store) {
	body := make([]byte, 0, 4<<20)
	for block := sha256.Sum256(nil); len(body) < 4<<20; block = sha256.Sum256(block[:]) {
		body = append(body, block[:]...)
	}
	v, err := s.SaveVersion(t.Context(), fleet.Version{Configuration: "large", Body: body, CreatedAt: Start}, 0)
	require.NoError(t, err)
	got, err := s.Version(t.Context(), "large", v.Number)
	require.NoError(t, err)
	require.True(t, bytes.Equal(body, got.Body))
	require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Bodies: [][]byte{body}}))
	effective, err := s.EffectiveConfig(t.Context(), v.Hash)
	require.NoError(t, err)
	require.True(t, bytes.Equal(body, effective))
	_, err = s.SaveVersion(t.Context(), fleet.Version{Configuration: "large", Body: make([]byte, fleet.MaxBody+1)}, store.AnyVersion)
	require.ErrorIs(t, err, store.ErrInvalid)
}
