package fleet

import (
	"encoding/json"
	"net/http"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/tests/harness"
)

// plan asks this agent alone what it would do.
func (a *speaker) plan() (p apiv1.Plan) {
	a.Helper()
	selector := a.selector()
	a.ask(http.MethodPost, "/plans?wait=0s", apiv1.PlanRequest{Name: a.name(), Selector: &selector, Body: "receivers: {}\n"}, &p)
	return p
}

// customDuties are about commands and custom messages.
var customDuties = []duty{
	{name: "ServerToAgentCommand/a restart is alone in its message", run: func(a *speaker) {
		a.full.Capabilities |= acceptsRestart
		a.hello()
		a.ask(http.MethodPost, "/agents/"+a.uid.String()+"/restart", nil, nil)
		m := a.until("the command", func(m *protobufs.ServerToAgent) bool { return m.Command != nil })
		require.Equal(a, protobufs.CommandType_CommandType_Restart, m.Command.Type)
		m.Command, m.Capabilities, m.CustomCapabilities = nil, 0, nil // which every answer over HTTP has
		require.True(a, proto.Equal(&protobufs.ServerToAgent{InstanceUid: a.uid[:]}, m), "%v", m)
		require.Nil(a, a.beat().Command, "once")
	}},
	{name: "ServerToAgentCommand/without AcceptsRestartCommand none comes", run: func(a *speaker) {
		a.hello()
		require.Error(a, a.server.Do(http.MethodPost, "/agents/"+a.uid.String()+"/restart", nil, nil))
		a.never("a command", func(m *protobufs.ServerToAgent) bool { return m.Command != nil })
	}},
	{name: "ServerToAgentCommand/AcceptsRestartCommand taken away counts at once", run: func(a *speaker) {
		a.full.Capabilities |= acceptsRestart
		a.hello()
		a.full.Capabilities &^= acceptsRestart
		a.beat()
		require.Error(a, a.server.Do(http.MethodPost, "/agents/"+a.uid.String()+"/restart", nil, nil))
		a.never("a command", func(m *protobufs.ServerToAgent) bool { return m.Command != nil })
	}},
	{name: "ServerToAgentCommand/AcceptsRestartCommand taken away counts also for what waits", over: overHTTP, run: func(a *speaker) {
		a.full.Capabilities |= acceptsRestart
		a.hello()
		a.ask(http.MethodPost, "/agents/"+a.uid.String()+"/restart", nil, nil)
		a.full.Capabilities &^= acceptsRestart
		a.never("a command", func(m *protobufs.ServerToAgent) bool { return m.Command != nil })
		a.full.Capabilities |= acceptsRestart
		require.Nil(a, a.beat().Command, "nor later")
	}},
	{name: "Custom Messages/the server announces its capability", run: func(a *speaker) {
		require.Equal(a, []string{plan.Capability}, a.hello().CustomCapabilities.GetCapabilities())
	}},
	{name: "Custom Messages/an agent that announced the capability is asked, and its answer taken", run: func(a *speaker) {
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{plan.Capability}}
		a.hello()
		id := a.plan().ID
		m := a.until("the question", func(m *protobufs.ServerToAgent) bool { return m.CustomMessage != nil }).CustomMessage
		require.Equal(a, plan.Capability, m.Capability)
		require.Equal(a, plan.TypePlan, m.Type)
		question, err := plan.ParseRequest(m.Data)
		require.NoError(a, err)
		data, err := json.Marshal(plan.Answer{ID: question.ID, Outcome: plan.Accepted})
		require.NoError(a, err)
		answer := &protobufs.CustomMessage{Capability: plan.Capability, Type: plan.TypeAnswer, Data: data}
		require.Nil(a, a.say(&protobufs.AgentToServer{CustomMessage: answer}).ErrorResponse)
		harness.Await(a, soon, "the plan", func() (bool, any) {
			var p apiv1.Plan
			a.ask(http.MethodGet, "/plans/"+id, nil, &p)
			return p.State == "done" && p.Accepted == 1, p
		})
	}},
	{name: "Custom Messages/an agent that did not announce the capability is not asked", run: func(a *speaker) {
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"com.example"}}
		a.hello()
		p := a.plan()
		a.never("a question", func(m *protobufs.ServerToAgent) bool { return m.CustomMessage != nil })
		a.ask(http.MethodGet, "/plans/"+p.ID, nil, &p)
		require.Equal(a, 1, p.CannotTell)
	}},
	{name: "Custom Messages/a capability withdrawn at runtime counts at once", run: func(a *speaker) {
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{plan.Capability}}
		a.hello()
		a.say(&protobufs.AgentToServer{CustomCapabilities: &protobufs.CustomCapabilities{}})
		p := a.plan()
		a.never("a question", func(m *protobufs.ServerToAgent) bool { return m.CustomMessage != nil })
		a.ask(http.MethodGet, "/plans/"+p.ID, nil, &p)
		require.Equal(a, 1, p.CannotTell)
	}},
	{name: "Custom Messages/one that nobody understands is answered as any other", run: func(a *speaker) {
		a.hello()
		m := a.say(&protobufs.AgentToServer{CustomMessage: &protobufs.CustomMessage{Capability: "com.example", Type: "x", Data: []byte{0xff}}})
		require.Nil(a, m.ErrorResponse)
		require.Equal(a, a.uid[:], m.InstanceUid)
	}},
}
