package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
	"github.com/collie-otel/collie/internal/server/store/storetest"
)

const fleetSize = 10_000

func fleetOf(b *testing.B, n int) (*sqlite.Store, string, []fleet.Agent) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "collie.db")
	s, err := sqlite.Open(context.Background(), path)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	agents := make([]fleet.Agent, n)
	for i := range agents {
		agents[i] = storetest.NewAgent(i)
		for _, key := range []string{"k8s.cluster.name", "k8s.namespace.name", "k8s.node.name", "cloud.region", "cloud.provider", "os.description", "host.arch", "team"} {
			agents[i].NonIdentifying[key] = key + " of the fleet"
		}
	}
	for batch := range slices.Chunk(agents, 200) {
		require.NoError(b, s.SaveAgents(context.Background(), store.AgentBatch{Agents: batch}))
	}
	return s, path, agents
}

// BenchmarkList lists 100 of 10,000 agents by a selector of three terms; `churning` changes an agent before each list. `scan` is the
// same choice without the index: reading and decoding each row's attributes.
func BenchmarkList(b *testing.B) {
	s, path, agents := fleetOf(b, fleetSize)
	selector, err := fleet.ParseSelector("service.name=otelcol-collie,deployment.environment in (prod,dev),!legacy")
	require.NoError(b, err)
	for name, c := range map[string]struct {
		query  store.AgentQuery
		before func()
	}{
		"selector":      {store.AgentQuery{Selector: selector}, func() {}},
		"selector+text": {store.AgentQuery{Selector: selector, Text: "node-77"}, func() {}},
		"churning": {store.AgentQuery{Selector: selector}, func() {
			require.NoError(b, s.SaveAgents(context.Background(), store.AgentBatch{Agents: agents[:1]}))
		}},
	} {
		b.Run(name, func(b *testing.B) {
			measure(b, c.before, func() {
				page, err := s.ListAgents(context.Background(), c.query)
				require.NoError(b, err)
				require.NotZero(b, page.Total)
			})
		})
	}
	db, err := sql.Open("sqlite", path)
	require.NoError(b, err)
	defer db.Close()
	b.Run("scan", func(b *testing.B) { measure(b, func() {}, func() { require.NotZero(b, scan(b, db, selector)) }) })
}

func scan(b *testing.B, db *sql.DB, selector fleet.Selector) (found int) {
	rows, err := db.QueryContext(context.Background(), `SELECT attributes FROM agents ORDER BY uid`)
	require.NoError(b, err)
	defer rows.Close()
	for rows.Next() {
		var text []byte
		var attributes map[string]string
		require.NoError(b, rows.Scan(&text))
		require.NoError(b, json.Unmarshal(text, &attributes))
		if selector.Matches(attributes) {
			found++
		}
	}
	require.NoError(b, rows.Err())
	return found
}

// measure reports the 50th and 99th percentile of do in milliseconds.
func measure(b *testing.B, before, do func()) {
	b.ReportAllocs()
	do()
	var took []time.Duration
	for b.Loop() {
		before()
		began := time.Now()
		do()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50_ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99_ms")
}

// BenchmarkListSeenSince leaves out half of 10,000 agents, which are gone: the worst of what a list may have to do.
func BenchmarkListSeenSince(b *testing.B) {
	s, _, agents := fleetOf(b, fleetSize)
	for i := range agents[:fleetSize/2] {
		agents[i].Connected = false
	}
	for batch := range slices.Chunk(agents[:fleetSize/2], 200) {
		require.NoError(b, s.SaveAgents(context.Background(), store.AgentBatch{Agents: batch}))
	}
	measure(b, func() {}, func() {
		page, err := s.ListAgents(context.Background(), store.AgentQuery{SeenSince: storetest.Start.Add(time.Second)})
		require.NoError(b, err)
		require.Equal(b, fleetSize/2, page.Total)
	})
}

// BenchmarkStart is what a server that starts does: it reads 10,000 agents, and stores that none of them is connected.
func BenchmarkStart(b *testing.B) {
	s, _, _ := fleetOf(b, fleetSize)
	for name, disconnect := range map[string]bool{"read": false, "read and disconnect": true} {
		b.Run(name, func(b *testing.B) {
			measure(b, func() {}, func() {
				agents, err := s.AllAgents(context.Background())
				require.NoError(b, err)
				require.Len(b, agents, fleetSize)
				if disconnect {
					for i := range agents {
						agents[i].Connected = false
					}
					require.NoError(b, s.SaveAgents(context.Background(), store.AgentBatch{Agents: agents}))
				}
			})
		})
	}
}

// BenchmarkSave writes agents whose state changed, 200 in a transaction.
func BenchmarkSave(b *testing.B) {
	s, _, agents := fleetOf(b, fleetSize)
	at := 0
	measure(b, func() { at = (at + 200) % fleetSize }, func() {
		require.NoError(b, s.SaveAgents(context.Background(), store.AgentBatch{Agents: agents[at : at+200]}))
	})
}

// BenchmarkTouch is what the heartbeats of 10,000 agents come to.
func BenchmarkTouch(b *testing.B) {
	s, _, agents := fleetOf(b, fleetSize)
	seen, now := map[string]time.Time{}, time.Now()
	measure(b, func() {
		now = now.Add(30 * time.Second)
		for i := range agents {
			seen[agents[i].UID] = now
		}
	}, func() { require.NoError(b, s.TouchAgents(context.Background(), seen)) })
}

// BenchmarkStep is a look of a running rollout at 10,000 agents.
func BenchmarkStep(b *testing.B) {
	agents := make([]fleet.Agent, fleetSize)
	pointers := make([]*fleet.Agent, fleetSize)
	for i := range agents {
		agents[i] = storetest.NewAgent(i)
		pointers[i] = &agents[i]
	}
	now := storetest.Start
	r, _, err := fleet.NewRollout("r", fleet.Configuration{Name: "base", Latest: 1}, 1, fleet.RolloutSpec{Soak: time.Hour}, "", now)
	require.NoError(b, err)
	next := &fleet.Version{Configuration: "base", Number: 1, Hash: fleet.ContentHash(nil)}
	measure(b, func() { now = now.Add(time.Millisecond) }, func() {
		deployments := []fleet.Deployment{{Rollout: r, Next: fleet.Placement{Version: next}}}
		r.Step(now, fleet.Candidates(pointers, deployments, "r"))
	})
	row, err := json.Marshal(r)
	require.NoError(b, err)
	b.ReportMetric(float64(len(row))/1e6, "row_MB")
}
