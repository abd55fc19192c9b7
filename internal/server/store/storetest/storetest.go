// Package storetest is the contract of store.Store as tests. Every implementation runs it.
package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// Start is the time at which the tests' things begin; times must be kept to the nanosecond.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)

// Run runs the contract. open opens a new, empty store, closed at the end of the test.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, store.Store){
		"Agents":                testAgents,
		"AgentPages":            testAgentPages,
		"PagesAreStable":        testPagesAreStable,
		"Touch":                 testTouch,
		"Forget":                testForget,
		"EffectiveConfigs":      testEffectiveConfigs,
		"Versions":              testVersions,
		"DeletedConfigurations": testDeletedConfigurations,
		"Rollouts":              testRollouts,
		"RolloutConflicts":      testRolloutConflicts,
		"Events":                testEvents,
		"Tokens":                testTokens,
		"SeenSince":             testSeenSince,
		"AllAgents":             testAllAgents,
		"Documents":             testDocuments,
		"DocumentLimits":        testDocumentLimits,
		"Changes":               testChanges,
		"Retention":             testRetention,
		"HostileTexts":          testHostileTexts,
		"LargeBodies":           testLargeBodies,
		"AllOrNothing":          testAllOrNothing,
		"ParallelWriters":       testParallelWriters,
		"Contexts":              testContexts,
		"CloseTwice":            testCloseTwice,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

// UID is the n-th agent's.
func UID(n int) string { return fmt.Sprintf("018f2d3c-0000-7000-8000-%012x", n) }

// NewAgent is the n-th agent: connected, healthy, in prod or, every third, in stage.
func NewAgent(n int) fleet.Agent {
	env := "prod"
	if n%3 == 0 {
		env = "stage"
	}
	return fleet.Agent{
		UID: UID(n), Identifying: map[string]string{"service.name": "otelcol-collie", "service.instance.id": UID(n), "service.version": "0.1.0"},
		NonIdentifying: map[string]string{"deployment.environment": env, "host.name": fmt.Sprintf("Node-%d", n), "os.type": "linux"},
		Capabilities:   fleet.ReportsStatus | fleet.AcceptsRemoteConfig | fleet.ReportsRemoteConfig | fleet.ReportsHealth,
		Health:         &fleet.Health{Healthy: true, Components: map[string]fleet.Health{"pipeline:traces": {Healthy: true, StartTime: Start}}},
		Connected:      true, Transport: "ws", ConnectedSince: Start, FirstSeen: Start, LastSeen: Start,
		EffectiveConfigHash: fleet.ContentHash([]byte("body")),
	}
}

func save(t *testing.T, s store.Store, agents ...fleet.Agent) {
	t.Helper()
	require.NoError(t, s.SaveAgents(t.Context(), store.AgentBatch{Agents: agents}))
}

func fill(t *testing.T, s store.Store, n int) {
	t.Helper()
	agents := make([]fleet.Agent, n)
	for i := range agents {
		agents[i] = NewAgent(i)
	}
	save(t, s, agents...)
}

func selector(t *testing.T, text string) fleet.Selector {
	t.Helper()
	s, err := fleet.ParseSelector(text)
	require.NoError(t, err)
	return s
}

func saveVersion(t *testing.T, s store.Store, name, body string) fleet.Version {
	t.Helper()
	v, err := s.SaveVersion(t.Context(), fleet.Version{
		Configuration: name, Selector: selector(t, "env in (a, b)"), Priority: -5, Body: []byte(body), Author: "anna", CreatedAt: Start,
	}, store.AnyVersion)
	require.NoError(t, err)
	return v
}

func newRollout(t *testing.T, s store.Store, id, name string, to int) *fleet.Rollout {
	t.Helper()
	c, err := s.Configuration(t.Context(), name)
	require.NoError(t, err)
	r, _, err := fleet.NewRollout(id, c, to, fleet.RolloutSpec{Canary: fleet.Amount{Count: 1}, Soak: time.Second}, "anna", Start)
	require.NoError(t, err)
	return r
}

func revision(t *testing.T, s store.Store) int64 {
	t.Helper()
	n, err := s.Revision(t.Context())
	require.NoError(t, err)
	return n
}

func events(t *testing.T, s store.Store, q store.EventQuery) []fleet.Event {
	t.Helper()
	all, err := s.ListEvents(t.Context(), q)
	require.NoError(t, err)
	return all
}

func testContexts(t *testing.T, s store.Store) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Agent(ended, UID(1))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.SaveAgents(ended, store.AgentBatch{Agents: []fleet.Agent{NewAgent(1)}}), context.Canceled)
	_, err = s.Agent(t.Context(), UID(1))
	require.ErrorIs(t, err, store.ErrNotFound)
}

func testCloseTwice(t *testing.T, s store.Store) {
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err := s.Revision(t.Context())
	require.Error(t, err)
}
