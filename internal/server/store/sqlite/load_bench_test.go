package sqlite_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
	"github.com/collie-otel/collie/internal/server/store/storetest"
)

// BenchmarkSaveRollout writes what a wave of a rollout comes to: 1,000 agents and 1,000 events in a transaction.
func BenchmarkSaveRollout(b *testing.B) {
	s, _, agents := fleetOf(b, fleetSize)
	at := 0
	measure(b, func() { at = (at + 1000) % fleetSize }, func() {
		batch := store.AgentBatch{Agents: agents[at : at+1000], Events: eventsOf(agents[at : at+1000])}
		require.NoError(b, s.SaveAgents(b.Context(), batch))
	})
}

func eventsOf(agents []fleet.Agent) []fleet.Event {
	events := make([]fleet.Event, len(agents))
	for i := range agents {
		events[i] = fleet.Event{
			Time: time.Now(), Actor: agents[i].UID, Kind: fleet.RolloutApplied, Agent: agents[i].UID, Configuration: "base",
			Version: 3, Rollout: "018f2d3c-1111-7000-8000-000000000001", Hash: agents[i].EffectiveConfigHash, Message: "wave 2 of 4",
		}
	}
	return events
}

// BenchmarkIndexMemory reports what the index takes for each of 10,000 agents.
func BenchmarkIndexMemory(b *testing.B) {
	s, _, agents := fleetOf(b, fleetSize)
	require.Len(b, agents[0].Attributes(), 14)
	clear(agents)
	list := func() {
		_, err := s.ListAgents(b.Context(), store.AgentQuery{Limit: 1})
		require.NoError(b, err)
	}
	before := heap()
	list()
	after := heap()
	for b.Loop() {
		list()
	}
	b.ReportMetric(float64(after-before)/fleetSize, "B/agent")
}

func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkBusyList lists while heartbeats of 10,000 agents and waves of 1,000 are written without a pause.
func BenchmarkBusyList(b *testing.B) {
	selector, err := fleet.ParseSelector("service.name=otelcol-collie,deployment.environment in (prod,dev),!legacy")
	require.NoError(b, err)
	for _, busy := range []string{"idle", "touch", "save", "both"} {
		b.Run(busy, func(b *testing.B) {
			s, _, agents := fleetOf(b, fleetSize)
			stop := load(s, agents, busy == "touch" || busy == "both", busy == "save" || busy == "both")
			measure(b, func() { time.Sleep(5 * time.Millisecond) }, func() {
				page, err := s.ListAgents(b.Context(), store.AgentQuery{Selector: selector})
				require.NoError(b, err)
				require.Len(b, page.Agents, 100)
			})
			require.NoError(b, stop())
		})
	}
}

// load writes until the function that it returns is called.
func load(s *sqlite.Store, agents []fleet.Agent, touch, save bool) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	errs := make(chan error, 2)
	var writers sync.WaitGroup
	loop := func(write func(round int) error) {
		writers.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				if err := write(round); err != nil && ctx.Err() == nil {
					errs <- fmt.Errorf("round %d: %w", round, err)
					return
				}
			}
		})
	}
	if touch {
		loop(func(round int) error {
			seen := make(map[string]time.Time, len(agents))
			for i := range agents {
				seen[agents[i].UID] = storetest.Start.Add(time.Duration(round+1) * time.Second)
			}
			return s.TouchAgents(ctx, seen)
		})
	}
	if save {
		loop(func(round int) error {
			at := round * 1000 % len(agents)
			return s.SaveAgents(ctx, store.AgentBatch{Agents: agents[at : at+1000], Events: eventsOf(agents[at : at+1000])})
		})
	}
	return func() error {
		cancel()
		writers.Wait()
		close(errs)
		return <-errs
	}
}
