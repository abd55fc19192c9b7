package control

import (
	"encoding/json"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/store"
)

// planner is an agent that has the capability to plan.
func (w *world) planner(attributes map[string]string) *testAgent {
	a := w.agent(attributes)
	a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{plan.Capability}}
	return a
}

// asked polls until the agent is asked.
func (a *testAgent) asked() plan.Request {
	a.w.t.Helper()
	var r plan.Request
	a.w.until("a question", func() (bool, any) {
		a.poll()
		if len(a.custom) == 0 {
			return false, nil
		}
		m := a.custom[0]
		a.custom = a.custom[1:]
		require.Equal(a.w.t, plan.TypePlan, m.Type)
		var err error
		r, err = plan.ParseRequest(m.Data)
		require.NoError(a.w.t, err)
		return true, nil
	})
	return r
}

func (a *testAgent) answer(answer plan.Answer) {
	data, err := json.Marshal(answer)
	require.NoError(a.w.t, err)
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, CustomMessage: &protobufs.CustomMessage{
		Capability: plan.Capability, Type: plan.TypeAnswer, Data: data,
	}})
}

func TestPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	accepts, refuses := w.planner(map[string]string{"env": "prod", "host.name": "a"}), w.planner(map[string]string{"env": "prod"})
	cannot, readOnly, gone := w.agent(map[string]string{"env": "prod"}), w.agent(map[string]string{"env": "prod"}), w.planner(map[string]string{"env": "prod"})
	elsewhere := w.planner(map[string]string{"env": "stage"})
	readOnly.full.Capabilities = uint64(fleet.ReportsStatus)
	for _, a := range []*testAgent{accepts, refuses, cannot, readOnly, gone, elsewhere} {
		a.hello()
	}
	gone.send(&protobufs.AgentToServer{Capabilities: gone.full.Capabilities, AgentDisconnect: &protobufs.AgentDisconnect{}})
	selector := "env=prod"
	p, err := w.Plan(t.Context(), "test", apiv1.PlanRequest{Name: "base", Selector: &selector, Body: "a: 1"})
	require.NoError(t, err)
	require.Equal(t, "running", p.State)
	require.Len(t, p.Agents, 5)
	require.Equal(t, 3, p.CannotTell)

	q := accepts.asked()
	require.Equal(t, map[string]string{"0000-base": "a: 1"}, q.Files)
	refuses.answer(plan.Answer{ID: q.ID, Outcome: plan.Accepted}) // not its question
	accepts.answer(plan.Answer{ID: q.ID, Outcome: plan.Busy})
	accepts.answer(plan.Answer{ID: accepts.asked().ID, Outcome: plan.Accepted, Diff: "+a"})
	refuses.answer(plan.Answer{ID: refuses.asked().ID, Outcome: plan.Refused, Stage: "dry run", Message: "no such thing"})
	<-w.PlanDone(p.ID)
	p, err = w.GetPlan(t.Context(), p.ID)
	require.NoError(t, err)
	require.Equal(t, "done", p.State)
	byUID := map[string]apiv1.PlanAgent{}
	for _, a := range p.Agents {
		byUID[a.InstanceUID] = a
	}
	require.Equal(t, apiv1.PlanAgent{InstanceUID: accepts.uid.String(), Name: "a", Outcome: "accepted", Diff: "+a"}, byUID[accepts.uid.String()])
	require.Equal(t, "dry_run", byUID[refuses.uid.String()].Stage)
	require.Equal(t, "refused", byUID[refuses.uid.String()].Outcome)
	require.Contains(t, byUID[cannot.uid.String()].Message, plan.Capability)
	require.Contains(t, byUID[readOnly.uid.String()].Message, "remote configuration")
	require.Contains(t, byUID[gone.uid.String()].Message, "not connected")
	require.Zero(t, accepts.offers, "nothing has changed")
}

// A plan is about the whole set that an agent would get, and of the newest version's selector unless told otherwise.
func TestPlanOfTheWholeSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.planner(map[string]string{"env": "prod"})
	a.hello()
	w.saved("base", "env=prod", "a: 1")
	w.saved("other", "", "b: 1")
	for _, name := range []string{"base", "other"} {
		id := w.rollOut(name, fleet.RolloutSpec{})
		a.untilOffered()
		a.applied()
		w.untilRollout(id, fleet.RolloutDone)
	}
	_, err := w.Plan(t.Context(), "test", apiv1.PlanRequest{Name: "base", Body: "a: 2"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"0000-base": "a: 2", "0001-other": "b: 1"}, a.asked().Files)
	away := "env=nowhere"
	_, err = w.Plan(t.Context(), "test", apiv1.PlanRequest{Name: "base", Selector: &away, Body: "a: 2"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"0000-other": "b: 1"}, a.asked().Files, "it would lose the file")
}

func TestPlanErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	bad := "a in"
	for _, r := range []apiv1.PlanRequest{{Name: "NO"}, {Name: "x", Selector: &bad}} {
		_, err := w.Plan(t.Context(), "test", r)
		require.ErrorIs(t, err, store.ErrInvalid)
	}
	_, err := w.GetPlan(t.Context(), "nope")
	require.ErrorIs(t, err, store.ErrNotFound)
	<-w.PlanDone("nope")
	p, err := w.Plan(t.Context(), "test", apiv1.PlanRequest{Name: "x"})
	require.NoError(t, err)
	<-w.PlanDone(p.ID)
}
