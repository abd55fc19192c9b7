package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

func exampleRollout(state string) apiv1.Rollout {
	r := apiv1.Rollout{
		ID: "r-1", Configuration: "gw", Version: 3, FromVersion: 2, State: state, Actor: "t-1", Canary: "1", Waves: []string{"50%", "100%"},
		Soak: "30s", Timeout: "5m0s", MaxFailures: 1, CreatedAt: before(3 * time.Minute), Wave: 2, WavesTotal: 3,
		Counts: map[string]int{"good": 1, "assigned": 2, "applied": 1, "failed": 1, "gone": 0},
		Agents: []apiv1.RolloutAgent{
			{InstanceUID: uidA, Phase: "good", Wave: 1},
			{InstanceUID: uidB, Phase: "assigned", Wave: 2},
			{InstanceUID: uidC, Phase: "assigned", Wave: 2, Away: true},
			{InstanceUID: uidD, Phase: "failed", Wave: 2, Message: "exporters::otlp:\nno endpoint"},
			{InstanceUID: "e", Phase: "applied", Wave: 2},
		},
	}
	if state == "succeeded" || state == "rolled_back" || state == "aborted" {
		r.FinishedAt = r.CreatedAt.Add(90 * time.Second)
	}
	return r
}

func TestRolloutStart(t *testing.T) {
	t.Parallel()
	for line, sent := range map[string]string{
		"gw":   `{"configuration":"gw"}`,
		"gw@2": `{"configuration":"gw","version":2}`,
		"gw --canary 10% --waves 20%,50 --soak 2m --timeout 10s --max-failures 2 --force": `{"configuration":"gw","canary":"10%","waves":["20%","50%"],` +
			`"soak":"2m0s","timeout":"10s","max_failures":2,"force":true}`,
		"gw --canary 2 --soak 0s": `{"configuration":"gw","canary":"2","soak":"0s"}`,
	} {
		server := newFakeServer(t, answers{"POST /rollouts": exampleRollout("running")})
		code, stdout, stderr := server.run(t, "rollout start "+line)
		require.Equal(t, exitDone, code, stderr)
		require.Equal(t, "rollout r-1 of gw@3 is running, wave 2 of 3, agents: 2 assigned, 1 applied, 1 good, 1 failed; "+
			"waits for 1 agent to apply it; watch it with collie rollout status r-1 --watch\n", stdout)
		require.Equal(t, []string{"POST /rollouts " + sent}, server.asked())
	}
}

func TestRolloutStatus(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"running", "paused", "rolled_back"} {
		rollout := exampleRollout(state)
		if state == "rolled_back" {
			rollout.Message = "2 agents failed"
		}
		server := newFakeServer(t, answers{
			"GET /rollouts":      apiv1.Rollouts{Rollouts: []apiv1.Rollout{rollout, {ID: "r-0"}}},
			"GET /rollouts/{id}": rollout,
		})
		code, stdout, stderr := server.run(t, "rollout status")
		require.Equal(t, exitDone, code, stderr)
		golden(t, "rollout_"+state, stdout)
		require.Equal(t, []string{"GET /rollouts", "GET /rollouts/r-1"}, server.asked())
	}
}

func TestRolloutWatchEndsWithTheRollout(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]struct {
		code    int
		end     string
		verdict string
	}{
		"succeeded":   {exitDone, "has succeeded", ""},
		"rolled_back": {exitRefused, "was rolled back", "collie rollout status: rollout r-1 of gw@3 was rolled back: too many; mend it, try it with collie plan, and apply it again, or with --force if the cause was elsewhere\n"},
		"aborted":     {exitFailed, "was aborted", "collie rollout status: rollout r-1 of gw@3 was aborted: its agents get what they had before\n"},
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			last := exampleRollout(state)
			last.Message = "too many"
			server := newFakeServer(t, answers{
				"GET /rollouts/{id}": inTurn[any](exampleRollout("running"), exampleRollout("running"), apiv1.Problem{Status: 503, Detail: "busy"}, last),
				"GET /events":        announce("rollout"),
			})
			code, stdout, stderr := server.run(t, "rollout status r-1 --watch")
			require.Equal(t, want.code, code, stderr)
			require.True(t, strings.HasPrefix(stdout, "rollout  r-1\n"), stdout)
			const status = "collie rollout status: "
			require.Equal(t, status+"rollout r-1 of gw@3 is running, wave 2 of 3, agents: 2 assigned, 1 applied, 1 good, 1 failed; waits for 1 agent to apply it\n"+
				status+"no answer from "+server.url+" (busy): trying again\n"+
				status+"rollout r-1 of gw@3 "+want.end+", wave 2 of 3, agents: 2 assigned, 1 applied, 1 good, 1 failed\n"+want.verdict, stderr)
		})
	}
}

func TestConfigApplyWithARollout(t *testing.T) {
	t.Parallel()
	body := file(t, "a: 2\n")
	routes := answers{
		"GET /configurations/{name}": exampleConfig(),
		"PUT /configurations/{name}": apiv1.Configuration{Name: "edge/gw", Version: 4, ReleasedVersion: 2},
		"POST /rollouts":             exampleRollout("pending"),
		"GET /rollouts/{id}":         exampleRollout("rolled_back"),
		"GET /events":                announce("rollout"),
	}
	server := newFakeServer(t, routes)
	code, stdout, stderr := server.run(t, "config apply --name edge/gw --rollout --canary 1 -f "+body)
	require.Equal(t, exitRefused, code)
	require.Contains(t, stdout, "state    rolled_back\n")
	require.True(t, strings.HasPrefix(stderr, "collie config apply: edge/gw: saved version 4\n"), stderr)
	require.Equal(t, []string{
		"GET /configurations/edge%2Fgw", `PUT /configurations/edge%2Fgw {"selector":"service.name=gw","priority":10,"body":"a: 2\n"}`,
		`POST /rollouts {"configuration":"edge/gw","version":4,"canary":"1"}`, "GET /rollouts/r-1",
	}, server.asked())
	code, _, stderr = server.run(t, "config apply --name edge/gw --rollout -f "+file(t, exampleConfig().Body))
	require.Equal(t, exitRefused, code)
	require.Contains(t, stderr, "edge/gw: unchanged, version 3 is like this\n")
}

func TestInterruptLeavesTheRolloutRunning(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{"POST /rollouts": exampleRollout("running"), "GET /rollouts/{id}": exampleRollout("running")})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, err buffer
	ended := make(chan int)
	go func() {
		ended <- execute(ctx, streams{out: &out, err: &err}, []string{"rollout", "start", "gw", "--watch", "--server", server.url})
	}()
	require.Eventually(t, func() bool { return strings.Contains(err.String(), "is running") }, 10*time.Second, 5*time.Millisecond)
	cancel()
	require.Equal(t, exitFailed, <-ended)
	require.Contains(t, err.String(), "collie rollout start: no longer watching: the rollout goes on; "+
		"see it with collie rollout status r-1, end it with collie rollout abort r-1\n")
	require.Equal(t, []string{`POST /rollouts {"configuration":"gw"}`, "GET /rollouts/r-1"}, server.asked())
}

func TestRolloutActions(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"POST /rollouts/{id}/pause":  exampleRollout("paused"),
		"POST /rollouts/{id}/resume": apiv1.Problem{Status: 409, Detail: "it is not paused"},
		"POST /rollouts/{id}/abort":  exampleRollout("aborted"),
		"GET /rollouts":              apiv1.Rollouts{Rollouts: []apiv1.Rollout{exampleRollout("running"), {ID: "r-0", State: "succeeded", Message: "done"}}},
	})
	code, stdout, _ := server.run(t, "rollout pause r-1")
	require.Equal(t, exitDone, code)
	require.Contains(t, stdout, "is paused, wave 2 of 3")
	require.Contains(t, stdout, "; go on with collie rollout resume r-1\n")
	code, _, stderr := server.run(t, "rollout resume r-1")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "collie rollout resume: it is not paused\n", stderr)
	code, stdout, _ = server.run(t, "rollout abort r-1")
	require.Equal(t, exitDone, code)
	require.Contains(t, stdout, "was aborted, wave 2 of 3")
	_, stdout, _ = server.run(t, "rollout list")
	golden(t, "rollouts", stdout)
}
