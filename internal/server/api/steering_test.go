package api

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

func TestPlans(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	g.control.plan = apiv1.Plan{ID: "p1", Name: "base", State: "done"}
	w := g.do("POST", "/plans", `{"name": "team/base", "selector": "a=b", "priority": 1, "body": "a: 1"}`)
	require.Equal(t, prefix+"/plans/p1", w.Header().Get("Location"))
	require.Equal(t, []apiv1.PlanAgent{}, get[apiv1.Plan](t, w, http.StatusOK).Agents)
	require.Equal(t, []string{"dev: plan team/base"}, g.control.all())
	get[apiv1.Plan](t, g.do("GET", "/plans/p1", ""), http.StatusOK)
	refused(t, g.do("GET", "/plans/none", ""), http.StatusNotFound)

	g.control.done = make(chan struct{})
	g.control.plan.State = "running"
	get[apiv1.Plan](t, g.do("POST", "/plans?wait=1ms", `{"name": "base", "body": "a: 1"}`), http.StatusAccepted)
	time.AfterFunc(10*time.Millisecond, func() { close(g.control.done) })
	started := time.Now()
	get[apiv1.Plan](t, g.do("POST", "/plans?wait=60s", `{"name": "base", "body": "a: 1"}`), http.StatusAccepted)
	require.Less(t, time.Since(started), 30*time.Second)

	n := len(g.control.all())
	for _, wait := range []string{"61s", "-1s", "x", "", "10"} {
		refused(t, g.do("POST", "/plans?wait="+wait, `{"name": "base", "body": "a: 1"}`), http.StatusBadRequest)
	}
	for _, body := range []string{
		`{}`, `{"name": "A", "body": "a"}`, `{"name": "a"}`, `{"name": "a", "body": "a", "selector": "=" }`,
		`{"name": "a", "body": "a", "priority": 1000001 }`, `{"name": "a", "body": "a", "configuration": "a"}`,
	} {
		refused(t, g.do("POST", "/plans", body), http.StatusBadRequest)
	}
	require.Len(t, g.control.all(), n)
}

func TestRollouts(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	refused(t, g.do("POST", "/rollouts", `{"configuration": "base"}`), http.StatusNotFound)
	g.do("PUT", "/configurations/base", `{"body": "a: 1"}`)
	g.do("PUT", "/configurations/base", `{"body": "a: 2"}`)
	w := g.do("POST", "/rollouts", `{"configuration": "base", "canary": "10%", "waves": ["20%", "50%"], "soak": "5s", "max_failures": 1}`)
	require.Equal(t, prefix+"/rollouts/r-base", w.Header().Get("Location"))
	r := get[apiv1.Rollout](t, w, http.StatusCreated)
	require.Equal(t, 2, r.Version)
	require.Equal(t, "10%", r.Canary)
	require.Equal(t, []string{"20%", "50%"}, r.Waves)
	require.Equal(t, 4, r.WavesTotal, "a canary, two waves, and all")
	require.Equal(t, "5s", r.Soak)
	require.Equal(t, "5m0s", r.Timeout)
	require.Equal(t, map[string]int{"assigned": 0, "applied": 0, "good": 0, "failed": 0, "gone": 0}, r.Counts)
	refused(t, g.do("POST", "/rollouts", `{"configuration": "base"}`), http.StatusConflict)

	stored, err := g.store.Rollout(t.Context(), "r-base")
	require.NoError(t, err)
	stored.Targets = map[string]*fleet.Target{uid2: {Phase: fleet.PhaseGood, Wave: 1}, uid1: {Phase: fleet.PhaseFailed, Message: "m"}}
	require.NoError(t, g.store.SaveRollout(t.Context(), stored))
	r = get[apiv1.Rollout](t, g.do("GET", "/rollouts/r-base", ""), http.StatusOK)
	require.Equal(t, []apiv1.RolloutAgent{{InstanceUID: uid1, Phase: "failed", Message: "m"}, {InstanceUID: uid2, Phase: "good", Wave: 1}}, r.Agents)
	require.Equal(t, 1, r.Counts["failed"])

	for _, step := range []struct {
		verb   string
		status int
		state  string
	}{{"resume", 409, ""}, {"pause", 200, "paused"}, {"pause", 409, ""}, {"resume", 200, "pending"}, {"abort", 200, "aborted"}, {"abort", 409, ""}} {
		w := g.do("POST", "/rollouts/r-base/"+step.verb, "")
		if step.status == 200 {
			require.Equal(t, step.state, get[apiv1.Rollout](t, w, 200).State)
		} else {
			refused(t, w, step.status)
		}
		refused(t, g.do("POST", "/rollouts/none/"+step.verb, ""), http.StatusNotFound)
	}
	require.Len(t, get[apiv1.Rollouts](t, g.do("GET", "/rollouts?configuration=base", ""), 200).Rollouts, 1)
	require.Empty(t, get[apiv1.Rollouts](t, g.do("GET", "/rollouts?unfinished=true", ""), 200).Rollouts)
	require.Empty(t, get[apiv1.Rollouts](t, g.do("GET", "/rollouts?configuration=other", ""), 200).Rollouts)
	refused(t, g.do("GET", "/rollouts?unfinished=yes", ""), http.StatusBadRequest)
	require.Len(t, get[apiv1.Events](t, g.do("GET", "/rollouts/r-base/events", ""), 200).Events, 1)
}

func TestRolloutSpecs(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	for body, want := range map[string]fleet.RolloutSpec{
		``:                 {Soak: fleet.DefaultSoak, Timeout: fleet.DefaultTimeout},
		`, "canary": 2`:    {Soak: fleet.DefaultSoak, Timeout: fleet.DefaultTimeout, Canary: fleet.Amount{Count: 2}},
		`, "canary": "2"`:  {Soak: fleet.DefaultSoak, Timeout: fleet.DefaultTimeout, Canary: fleet.Amount{Count: 2}},
		`, "canary": null`: {Soak: fleet.DefaultSoak, Timeout: fleet.DefaultTimeout},
		`, "soak": "0s", "timeout": "1m", "force": true, "waves": ["1%"]`: {Timeout: time.Minute, Force: true, Waves: []int{1}},
	} {
		var in apiv1.RolloutRequest
		require.NoError(t, json.Unmarshal([]byte(`{"configuration": "base"`+body+`}`), &in))
		spec, err := toSpec(&in)
		require.NoError(t, err, body)
		require.Equal(t, want, spec, body)
	}
	for _, body := range []string{
		`"canary": "x"`, `"canary": 1.5`, `"canary": -1`, `"canary": "101%"`, `"canary": []`, `"canary": {}`, `"canary": true`,
		`"waves": ["10"]`, `"waves": ["0%"]`, `"waves": ["20%", "10%"]`, `"waves": [10]`, `"waves": "10%"`, `"soak": "-1s"`, `"soak": "x"`,
		`"soak": 30`, `"timeout": "100000h"`, `"max_failures": -1`, `"version": -1`, `"wave": []`, `"configuration": "../x"`,
	} {
		refused(t, g.do("POST", "/rollouts", `{"configuration": "base", `+body+`}`), http.StatusBadRequest)
	}
	require.Empty(t, g.control.all())
}

func TestTokens(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	admin := func(method, path, body string) (int, []byte) {
		w := g.as(apiv1.RoleAdmin, ask(method, prefix+path, body))
		return w.Code, w.Body.Bytes()
	}
	code, body := admin("POST", "/tokens", `{"role": "agent", "uses": 3, "expires": "30d"}`)
	require.Equal(t, http.StatusCreated, code, string(body))
	var made apiv1.Token
	require.NoError(t, json.Unmarshal(body, &made))
	require.Equal(t, 3, *made.Uses)
	require.NotEmpty(t, made.Secret)
	require.Equal(t, 30*24*time.Hour, made.ExpiresAt.Sub(made.CreatedAt))

	_, body = admin("GET", "/tokens", "")
	var list apiv1.Tokens
	require.NoError(t, json.Unmarshal(body, &list))
	require.Len(t, list.Tokens, 5)
	require.NotContains(t, string(body), "secret")
	require.NotContains(t, string(body), "hash")
	require.Nil(t, list.Tokens[0].Uses)

	code, _ = admin("DELETE", "/tokens/"+made.ID, "")
	require.Equal(t, http.StatusNoContent, code)
	code, _ = admin("DELETE", "/tokens/"+made.ID, "")
	require.Equal(t, http.StatusNotFound, code)
	_, body = admin("GET", "/audit", "")
	require.Contains(t, string(body), "token_revoked")
	require.NotContains(t, string(body), made.Secret)

	for _, bad := range []string{
		`{}`, `{"role": "root"}`, `{"role": "agent", "uses": 0}`, `{"role": "agent", "uses": -1}`, `{"role": "viewer", "uses": 1}`,
		`{"role": "viewer", "expires": "0s"}`, `{"role": "viewer", "expires": "-1d"}`, `{"role": "viewer", "expires": "x"}`, `{"role": "viewer", "expires": "d"}`,
		`{"role": "viewer", "expires": "99999d"}`, `{"role": "viewer", "agent": "a"}`,
	} {
		code, body := admin("POST", "/tokens", bad)
		require.Equal(t, http.StatusBadRequest, code, "%s: %s", bad, body)
	}
	dev := newDev(t)
	for method, path := range map[string]string{"GET": "/tokens", "POST": "/tokens", "DELETE": "/tokens/x"} {
		require.Contains(t, refused(t, dev.do(method, path, `{"role": "admin"}`), http.StatusConflict), "--dev")
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	body := `{"selector": "a==b", "priority": 3,
		"opamp": {"endpoint": "wss://collie.example/v1/opamp", "heartbeat_interval": "10s", "headers": {"Authorization": "s3cret"}},
		"own_metrics": {"endpoint": "self", "headers": {"X": "s3cret"}}, "own_logs": {"endpoint": "https://o.example/v1/logs"},
		"other": {"db": {"endpoint": "https://db.example", "headers": {"X": "s3cret"}, "ca": "PEM"}}}`
	saved := get[apiv1.Connection](t, g.do("PUT", "/connections/main", body), http.StatusOK)
	require.Equal(t, "main", saved.Name)
	require.Equal(t, "a=b", saved.Selector)
	require.Equal(t, map[string]string{"Authorization": redacted}, saved.OpAMP.Headers)
	for _, path := range []string{"/connections", "/connections/main"} {
		w := g.do("GET", path, "")
		require.Equal(t, http.StatusOK, w.Code)
		require.NotContains(t, w.Body.String(), "s3cret")
		require.Contains(t, w.Body.String(), redacted)
	}
	kept := g.control.connections["main"]
	require.Equal(t, "s3cret", kept.OpAMP.Headers["Authorization"], "answers are copies")
	require.Equal(t, "s3cret", kept.OwnMetrics.Headers["X"])
	require.Equal(t, "s3cret", kept.Other["db"].Headers["X"])
	require.Equal(t, http.StatusNoContent, g.do("DELETE", "/connections/main", "").Code)
	refused(t, g.do("DELETE", "/connections/main", ""), http.StatusNotFound)
	refused(t, g.do("GET", "/connections/main", ""), http.StatusNotFound)
	n := len(g.control.all())
	for _, bad := range []string{
		`{"name": "other"}`, `{"selector": "="}`, `{"priority": 9999999}`, `{"own_traces": {"endpoint": ""}}`, `{"own_traces": {"endpoint": "self"}}`,
		`{"own_logs": {"endpoint": "https://me:s3cret@o.example"}}`, `{"opamp": {"heartbeat_interval": "x"}}`, `{"opamp": {"endpoint": "host:1"}}`,
		`{"other": {"x": {"endpoint": "://s3cret@"}}}`,
	} {
		require.NotContains(t, refused(t, g.do("PUT", "/connections/main", bad), http.StatusBadRequest), "s3cret")
	}
	refused(t, g.do("PUT", "/connections/a%2Fb", `{}`), http.StatusBadRequest)
	require.Len(t, g.control.all(), n)
}

func TestPackages(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	require.JSONEq(t, `{"packages": [], "offers": []}`, g.do("GET", "/packages", "").Body.String())
	o := get[apiv1.PackageOffer](t, g.do("PUT", "/packages/offers/all", `{"version": "1.2.3", "selector": "a"}`), http.StatusOK)
	require.Equal(t, apiv1.PackageOffer{Name: "all", Version: "1.2.3", Selector: "a"}, o)
	require.Len(t, get[apiv1.Packages](t, g.do("GET", "/packages", ""), http.StatusOK).Offers, 1)
	refused(t, g.do("PUT", "/packages/offers/all", `{}`), http.StatusBadRequest)
	refused(t, g.do("PUT", "/packages/offers/All", `{"version": "1"}`), http.StatusBadRequest)
	require.Equal(t, http.StatusNoContent, g.do("DELETE", "/packages/offers/all", "").Code)
	refused(t, g.do("DELETE", "/packages/offers/all", ""), http.StatusNotFound)
}
