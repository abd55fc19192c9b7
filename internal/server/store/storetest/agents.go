package storetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func testAgents(t *testing.T, s store.Store) {
	_, err := s.Agent(t.Context(), UID(1))
	require.ErrorIs(t, err, store.ErrNotFound)
	a := NewAgent(1)
	a.RemoteConfig.Report(Start, "x", fleet.Failed, "no such processor")
	a.Packages = []fleet.PackageStatus{{Name: "otelcol", Status: "Installed"}}
	save(t, s, a)
	got, err := s.Agent(t.Context(), a.UID)
	require.NoError(t, err)
	require.Equal(t, a, got)

	a.FirstSeen, a.LastSeen, a.Connected = Start.Add(time.Hour), Start.Add(-time.Hour), false
	save(t, s, a)
	got, err = s.Agent(t.Context(), a.UID)
	require.NoError(t, err)
	require.Equal(t, Start, got.FirstSeen, "the first one stays")
	require.Equal(t, Start, got.LastSeen, "the later one stays")
	require.Equal(t, fleet.Disconnected, got.State())

	bad := NewAgent(2)
	bad.UID = "UPPER"
	require.ErrorIs(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{bad}}), store.ErrInvalid)
}

func testAgentPages(t *testing.T, s store.Store) {
	const n = 250
	fill(t, s, n)
	gone := NewAgent(4)
	gone.Connected = false
	save(t, s, gone)
	for name, c := range map[string]struct {
		query store.AgentQuery
		total int
	}{
		"all":                {store.AgentQuery{}, n},
		"equality":           {store.AgentQuery{Selector: selector(t, "deployment.environment=stage")}, 84},
		"set and absence":    {store.AgentQuery{Selector: selector(t, "deployment.environment in (prod,dev),!legacy")}, n - 84},
		"state":              {store.AgentQuery{State: fleet.Disconnected}, 1},
		"text, value":        {store.AgentQuery{Text: "NODE-24"}, 11},
		"text, key":          {store.AgentQuery{Text: "os.TYPE"}, n},
		"text, uid":          {store.AgentQuery{Text: UID(17)}, 1},
		"text and selector":  {store.AgentQuery{Text: "node-24", Selector: selector(t, "deployment.environment=stage")}, 5},
		"nothing":            {store.AgentQuery{Selector: selector(t, "legacy")}, 0},
		"SQL is text":        {store.AgentQuery{Text: "' OR 1=1 --"}, 0},
		"SQL is a value":     {store.AgentQuery{Selector: selector(t, `host.name="' OR '1'='1"`)}, 0},
		"a wildcard is text": {store.AgentQuery{Text: "node%"}, 0},
		"invalid UTF-8":      {store.AgentQuery{Text: "\xff"}, 0},
		"not across parts":   {store.AgentQuery{Text: "os.typelinux"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, limit := range []int{0, 1, 7, n, 5000} {
				q, seen, pages := c.query, "", 0
				q.Limit = limit
				total := 0
				for {
					page, err := s.ListAgents(t.Context(), q)
					require.NoError(t, err)
					require.Equal(t, c.total, page.Total)
					for _, a := range page.Agents {
						require.Greater(t, a.UID, seen, "ordered, and none twice")
						require.True(t, q.Selector.Matches(a.Attributes()))
						seen = a.UID
						total++
					}
					if pages++; page.Next == "" {
						break
					}
					q.Cursor = page.Next
				}
				require.Equal(t, c.total, total, "limit %d", limit)
				if limit == 1 {
					require.Equal(t, max(1, c.total), pages, "no empty page at the end")
				}
			}
		})
	}
}

func testPagesAreStable(t *testing.T, s store.Store) {
	fill(t, s, 20)
	page, err := s.ListAgents(t.Context(), store.AgentQuery{Limit: 10})
	require.NoError(t, err)
	gone := NewAgent(3)
	gone.Connected = false
	save(t, s, gone)
	require.NoError(t, s.ForgetAgent(t.Context(), UID(3)))
	save(t, s, NewAgent(30))
	page, err = s.ListAgents(t.Context(), store.AgentQuery{Limit: 100, Cursor: page.Next})
	require.NoError(t, err)
	require.Len(t, page.Agents, 11)
	require.Equal(t, UID(10), page.Agents[0].UID, "none left out, none twice")
	require.Equal(t, 20, page.Total)
}

func testTouch(t *testing.T, s store.Store) {
	save(t, s, NewAgent(1), NewAgent(2))
	before := revision(t, s)
	later := Start.Add(time.Minute)
	require.NoError(t, s.TouchAgents(t.Context(), nil))
	require.NoError(t, s.TouchAgents(t.Context(), map[string]time.Time{UID(1): later, UID(2): Start.Add(-time.Hour), UID(99): later}))
	a, err := s.Agent(t.Context(), UID(1))
	require.NoError(t, err)
	require.Equal(t, later, a.LastSeen)
	a, err = s.Agent(t.Context(), UID(2))
	require.NoError(t, err)
	require.Equal(t, Start, a.LastSeen, "never back")
	_, err = s.Agent(t.Context(), UID(99))
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Equal(t, before, revision(t, s), "a heartbeat is no change")
}

func testSeenSince(t *testing.T, s store.Store) {
	fill(t, s, 6)
	for _, n := range []int{1, 2, 3} {
		gone := NewAgent(n)
		gone.Connected = false
		save(t, s, gone)
	}
	later := Start.Add(time.Hour)
	seen := func(since time.Time, want ...int) {
		t.Helper()
		page, err := s.ListAgents(t.Context(), store.AgentQuery{SeenSince: since})
		require.NoError(t, err)
		require.Equal(t, len(want), page.Total)
		for i, n := range want {
			require.Equal(t, UID(n), page.Agents[i].UID)
		}
	}
	seen(time.Time{}, 0, 1, 2, 3, 4, 5)
	seen(Start, 0, 1, 2, 3, 4, 5)
	seen(later, 0, 4, 5)
	require.NoError(t, s.TouchAgents(t.Context(), map[string]time.Time{UID(2): later}))
	seen(later, 0, 2, 4, 5)
	seen(later.Add(1), 0, 4, 5)
	save(t, s, NewAgent(3))
	seen(later, 0, 2, 3, 4, 5)

	page, err := s.ListAgents(t.Context(), store.AgentQuery{SeenSince: later, State: fleet.Disconnected, Limit: 1})
	require.NoError(t, err)
	require.Equal(t, 1, page.Total)
	require.Empty(t, page.Next)
}

// testAllAgents is a server that starts: it reads all agents, and none of them is connected to it.
func testAllAgents(t *testing.T, s store.Store) {
	all, err := s.AllAgents(t.Context())
	require.NoError(t, err)
	require.Empty(t, all)
	save(t, s, NewAgent(2), NewAgent(0), NewAgent(1))
	later := Start.Add(time.Minute)
	require.NoError(t, s.TouchAgents(t.Context(), map[string]time.Time{UID(1): later}))
	all, err = s.AllAgents(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 3)
	for i := range all {
		want, err := s.Agent(t.Context(), UID(i))
		require.NoError(t, err)
		require.Equal(t, want, all[i])
		all[i].Connected, all[i].ConnectedSince = false, time.Time{}
	}
	require.Equal(t, later, all[1].LastSeen)
	save(t, s, all...)
	page, err := s.ListAgents(t.Context(), store.AgentQuery{State: fleet.Disconnected})
	require.NoError(t, err)
	require.Equal(t, all, page.Agents)
}

func testForget(t *testing.T, s store.Store) {
	a := NewAgent(1)
	require.ErrorIs(t, s.ForgetAgent(t.Context(), a.UID), store.ErrNotFound)
	save(t, s, a)
	require.ErrorIs(t, s.ForgetAgent(t.Context(), a.UID), store.ErrConflict, "it is connected")
	a.Connected = false
	save(t, s, a)
	require.NoError(t, s.ForgetAgent(t.Context(), a.UID, fleet.Event{Kind: fleet.AgentForgotten, Agent: a.UID, Time: Start}))
	_, err := s.Agent(t.Context(), a.UID)
	require.ErrorIs(t, err, store.ErrNotFound)
	page, err := s.ListAgents(t.Context(), store.AgentQuery{})
	require.NoError(t, err)
	require.Zero(t, page.Total)
	require.Len(t, events(t, s, store.EventQuery{Agent: a.UID}), 1, "its timeline stays")
}

func testEffectiveConfigs(t *testing.T, s store.Store) {
	body := []byte("a: \xff\x00 b\n")
	a := NewAgent(1)
	a.EffectiveConfigHash = fleet.ContentHash(body)
	for range 2 {
		require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{a}, Bodies: [][]byte{body, body, []byte("unused")}}))
	}
	got, err := s.EffectiveConfig(t.Context(), a.EffectiveConfigHash)
	require.NoError(t, err)
	require.True(t, bytes.Equal(body, got), "byte for byte")
	pruned, err := s.Prune(t.Context(), store.Retention{})
	require.NoError(t, err)
	require.Equal(t, store.Pruned{Bodies: 1}, pruned)
	_, err = s.EffectiveConfig(t.Context(), fleet.ContentHash([]byte("unused")))
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = s.EffectiveConfig(t.Context(), a.EffectiveConfigHash)
	require.NoError(t, err)
}
