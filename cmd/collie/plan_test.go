package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

func examplePlan() apiv1.Plan {
	p := apiv1.Plan{ID: "p-1", Name: "gw", State: "done", Accepted: 10, Refused: 3, CannotTell: 2}
	add := func(name, outcome, stage, message, diff string) {
		uid := fmt.Sprintf("0190c1d2-0000-7000-8000-%012d", len(p.Agents))
		p.Agents = append(p.Agents, apiv1.PlanAgent{InstanceUID: uid, Name: name, Outcome: outcome, Stage: stage, Message: message, Diff: diff})
	}
	add("db-1", apiv1.OutcomeAccepted, "", "", "--- running\n+++ candidate\n@@ -1 +1 @@\n-a: 0\n+a: 2\n")
	for i := range 7 {
		diff := fmt.Sprintf("--- running\n+++ candidate\n@@ -%[1]d,2 +%[1]d,2 @@\n host: web-%[1]d\n-a: 1\n+a: 2\n", i+1)
		add(fmt.Sprintf("web-%d", i), apiv1.OutcomeAccepted, "", "", diff)
	}
	add("same", apiv1.OutcomeAccepted, "", "", "")
	add("long", apiv1.OutcomeAccepted, "", "", "")
	p.Agents[len(p.Agents)-1].Truncated = true
	add("old-1", apiv1.OutcomeRefused, "dry_run", "exporters:\nno type (valid values: [otlp debug])", "")
	add("locked", apiv1.OutcomeRefused, "policy", "exporters: debug is denied", "")
	add("old-2", apiv1.OutcomeRefused, "dry_run", "exporters:\nno type (valid values: [debug otlp])", "")
	add("away-1", apiv1.OutcomeCannotTell, "", "it is away", "")
	add("", apiv1.OutcomeCannotTell, "", "", "")
	return p
}

func TestPlan(t *testing.T) {
	t.Parallel()
	waiting := apiv1.Plan{ID: "p-1", Name: "gw", State: "running", Waiting: 15}
	server := newFakeServer(t, answers{"POST /plans": waiting, "GET /plans/{id}": examplePlan()})
	code, stdout, stderr := server.run(t, "plan --name gw --selector= --priority 2 -f "+file(t, "a: 2\n"))
	require.Equal(t, exitRefused, code)
	golden(t, "plan", stdout)
	require.Equal(t, "collie plan: asking 15 agents: 0 accept, 0 refuse, 0 cannot tell, 15 have not answered\n"+
		"collie plan: 3 of 15 agents refuse: change the file for the reasons above, or narrow --selector\n", stderr)
	require.Equal(t, []string{`POST /plans?wait=2s {"name":"gw","selector":"","priority":2,"body":"a: 2\n"}`, "GET /plans/p-1"}, server.asked())
}

func TestPlanExitCodes(t *testing.T) {
	t.Parallel()
	path := file(t, "a: 2\n")
	for name, tt := range map[string]struct {
		answer any
		code   int
	}{
		"all accept":  {apiv1.Plan{State: "done", Accepted: 1, Agents: examplePlan().Agents[:1]}, exitDone},
		"no agent":    {apiv1.Plan{State: "done", Name: "gw"}, exitDone},
		"cannot tell": {apiv1.Plan{State: "done", CannotTell: 1, Agents: examplePlan().Agents[13:14]}, exitDone},
		"one refuses": {examplePlan(), exitRefused},
		"bad body":    {apiv1.Problem{Status: 422, Detail: "the body is not YAML"}, exitFailed},
		"no token":    {apiv1.Problem{Status: 401, Detail: "a token is needed"}, exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newFakeServer(t, answers{"POST /plans": tt.answer})
			code, stdout, _ := server.run(t, "plan -o json --name gw -f "+path)
			require.Equal(t, tt.code, code)
			require.Equal(t, []string{`POST /plans?wait=2s {"name":"gw","body":"a: 2\n"}`}, server.asked())
			if code != exitFailed {
				require.NoError(t, json.Unmarshal([]byte(stdout), &apiv1.Plan{}))
			}
		})
	}
}

func TestDiffsAreColouredOnTerminalsOnly(t *testing.T) {
	t.Parallel()
	const diff = "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n z\n\n"
	require.Equal(t, diff, palette(false).diff(diff))
	require.Equal(t, "--- a\n+++ b\n\x1b[36m@@ -1 +1 @@\x1b[0m\n\x1b[31m-x\x1b[0m\n\x1b[32m+y\x1b[0m\n z\n\n", palette(true).diff(diff))
}
