package control

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/store"
)

// flip is one message that makes an event.
func (a *testAgent) flip(n int) {
	health := &protobufs.ComponentHealth{Healthy: n%2 == 1, LastError: "broken"}
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, Health: health})
}

// An agent that changes with every message does not fill the disk with its story, and the story says what it leaves out.
func TestAnAgentFloodsItsEvents(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) } })
	a, calm := w.agent(nil), w.agent(nil)
	a.hello()
	calm.hello()
	const flips = 1000
	for n := range flips {
		a.flip(n)
	}
	require.LessOrEqual(t, len(w.kinds(a.uid.String())), eventBurst+1)
	calm.flip(0)
	require.Contains(t, w.kinds(calm.uid.String()), fleet.AgentUnhealthy, "others are not concerned")

	later.Store(int64(eventEvery))
	a.flip(0)
	require.NoError(t, w.save(t.Context()))
	events, err := w.db.ListEvents(t.Context(), store.EventQuery{Agent: a.uid.String(), Limit: 2})
	require.NoError(t, err)
	require.Equal(t, fleet.AgentUnhealthy, events[0].Kind)
	require.Equal(t, fleet.EventsLeftOut, events[1].Kind)
	require.Equal(t, fmt.Sprintf("%d events, more than are kept of one agent", flips+1-eventBurst), events[1].Message)
}

// What an agent calls a resource costs no more than reading a real one, however much there is; what is not read counts as managed.
func TestManagedIsBounded(t *testing.T) {
	t.Parallel()
	label := "metadata: {labels: {opentelemetry.io/opamp-managed: \"false\"}}\n"
	large := label + strings.Repeat("# "+strings.Repeat("x", 61)+"\n", maxResource/64)
	files := map[string]*protobufs.AgentConfigFile{"large": {Body: []byte(large)}, "small": {Body: []byte(label)}}
	for i := range 20 {
		files[fmt.Sprintf("some/%02d", i)] = &protobufs.AgentConfigFile{Body: []byte(large[:maxResource-1])}
	}
	_, managed := effectiveConfig(&protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: files}})
	require.Contains(t, managed, "large")
	require.NotContains(t, managed, "some/00")
	require.Contains(t, managed, "some/19", "beyond what is read of one agent")

	bomb := "opentelemetry.io/opamp-managed: x\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'l'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	began := time.Now()
	isManaged([]byte(bomb))
	isManaged([]byte("opentelemetry.io/opamp-managed: " + strings.Repeat("[", maxResource/2)))
	require.Less(t, time.Since(began), 5*time.Second)
}

// Components that no binary has are not kept.
func TestComponentsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.full.Capabilities |= uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents)
	all := map[string]*protobufs.ComponentDetails{}
	for i := range 5000 {
		all[fmt.Sprintf("component %060d", i)] = &protobufs.ComponentDetails{}
	}
	a.full.AvailableComponents = &protobufs.AvailableComponents{Hash: []byte("h"), Components: all}
	a.hello()
	require.Zero(t, a.poll().Flags, "it is not asked again")
	w.end()
	w.start()
	documents, err := w.db.Documents(t.Context(), kindComponents)
	require.NoError(t, err)
	require.Empty(t, documents)
}

// Configurations that come faster than they are written wait for the store, not in memory.
func TestBodiesAreWrittenBeforeThereAreTooMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	body := bytes.Repeat([]byte("x"), maxHeld/4)
	for n := range 10 {
		body[0] = byte('a' + n)
		a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, EffectiveConfig: &protobufs.EffectiveConfig{
			ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: body}}},
		}})
		w.mu.Lock()
		held := 0
		for _, b := range w.unsaved.bodies {
			held += len(b)
		}
		require.Equal(t, held, w.unsaved.held)
		w.mu.Unlock()
		require.LessOrEqual(t, held, maxHeld)
	}
}

// What an agent says of itself is cut to what any agent says.
func TestDescriptionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	long := strings.Repeat("x", maxText)
	attributes := map[string]string{}
	health := &protobufs.ComponentHealth{Healthy: true, ComponentHealthMap: map[string]*protobufs.ComponentHealth{}}
	for i := range maxAttributes {
		attributes[fmt.Sprintf("key %03d", i)] = long
		health.ComponentHealthMap[fmt.Sprint(i)] = &protobufs.ComponentHealth{LastError: long}
	}
	a := w.agent(attributes)
	a.full.Health = health
	a.hello()
	stored, size := a.stored(), 0
	for k, v := range stored.Identifying {
		size += len(k) + len(v)
	}
	require.LessOrEqual(t, size, maxDescription)
	require.NotEmpty(t, stored.Identifying)
	errors := 0
	for _, c := range stored.Health.Components {
		errors += len(c.LastError)
	}
	require.LessOrEqual(t, errors, maxHealthText)
	require.NotZero(t, errors)
	require.Len(t, stored.Health.Components, maxAttributes, "which there are, and whether they are healthy, is told")
}

// An agent with another configuration each time does not fill the disk within the hour between two cleanings.
func TestBodiesThatNobodyHasAreDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	said := func(body string) string {
		a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, EffectiveConfig: &protobufs.EffectiveConfig{
			ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte(body)}}},
		}})
		return a.stored().EffectiveConfigHash
	}
	first, second := said("a: 1"), said("a: 2")
	w.saving.Lock()
	require.Equal(t, 8, w.written)
	w.written = maxWritten
	w.saving.Unlock()
	require.NoError(t, w.discard(t.Context()))
	_, err := w.db.EffectiveConfig(t.Context(), first)
	require.ErrorIs(t, err, store.ErrNotFound)
	_, err = w.db.EffectiveConfig(t.Context(), second)
	require.NoError(t, err)
	require.Zero(t, w.written)
}

// What agents answer to a plan is kept for an hour: once if many say the same, and not without end.
func TestDiffsOfAPlanAreBounded(t *testing.T) {
	t.Parallel()
	job := &planJob{agents: map[string]*apiv1.PlanAgent{}}
	answer := func(diff string) *apiv1.PlanAgent {
		q := &question{uid: uuid.New()}
		job.agents[q.uid.String()] = &apiv1.PlanAgent{}
		require.True(t, (&Control{now: time.Now}).answered(job, q, plan.Answer{Outcome: plan.Accepted, Diff: diff}))
		return job.agents[q.uid.String()]
	}
	require.True(t, answer(strings.Repeat("x", maxDiff+1)).Truncated)
	kept := 0
	for n := range maxDiffs/maxDiff + 10 {
		if a := answer(strings.Repeat(string(rune('A'+n)), maxDiff)); a.Diff != "" {
			kept += len(a.Diff)
		} else {
			require.True(t, a.Truncated)
		}
	}
	require.Equal(t, maxDiffs, kept)
	require.Len(t, answer(strings.Repeat("A", maxDiff)).Diff, maxDiff, "there is one already")
	require.False(t, answer("").Truncated)
}
