package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func TestAgentIsWritten(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	effective := "a: 1\n---\nb: 2\n"
	full := fleet.Agent{
		UID: uid1, Identifying: map[string]string{"service.version": "1.2"}, NonIdentifying: map[string]string{"host.name": "h"},
		Capabilities: fleet.ReportsStatus | fleet.AcceptsRemoteConfig, CustomCapabilities: []string{"io.x/1"},
		Health:    &fleet.Health{Healthy: true, Components: map[string]fleet.Health{"p": {Status: "StatusOK"}}},
		Connected: true, Transport: "ws", ConnectedSince: now, FirstSeen: now, LastSeen: now, Duplicates: 2,
		RemoteConfig:        fleet.RemoteConfig{DesiredHash: "d", ReportedHash: "r", Status: fleet.Applying, Withheld: "w"},
		ConnectionSettings:  fleet.ConnectionSettings{OfferedHash: "o", Status: fleet.Applied},
		Packages:            []fleet.PackageStatus{{Name: "p", Status: "Installed"}},
		EffectiveConfigHash: fleet.ContentHash([]byte(effective)), AvailableComponentsHash: "c",
	}
	require.NoError(t, g.store.SaveAgents(t.Context(), store.AgentBatch{
		Agents: []fleet.Agent{full, {UID: uid2}}, Bodies: [][]byte{[]byte(effective)},
	}))
	got := get[apiv1.Agent](t, g.do("GET", "/agents/"+uid1, ""), http.StatusOK)
	require.Equal(t, "pending", got.State)
	require.Equal(t, "1.2", got.Version)
	require.Equal(t, []string{"ReportsStatus", "AcceptsRemoteConfig"}, got.Capabilities)
	require.Equal(t, "APPLYING", got.RemoteConfig.Status)
	require.Equal(t, "w", got.RemoteConfig.Withheld)
	require.Equal(t, "StatusOK", got.Health.Components["p"].Status)
	require.Equal(t, "Installed", got.Packages[0].Status)

	var empty map[string]any
	require.NoError(t, json.Unmarshal(g.do("GET", "/agents/"+uid2, "").Body.Bytes(), &empty))
	require.Equal(t, map[string]any{
		"instance_uid": uid2, "state": "disconnected", "connected": false, "identifying_attributes": map[string]any{},
		"non_identifying_attributes": map[string]any{}, "capabilities": []any{}, "remote_config": map[string]any{"status": "UNSET"},
		"connection_settings": map[string]any{"status": "UNSET"},
	}, empty)

	w := g.do("GET", "/agents/"+uid1+"/effective-config", "")
	require.Equal(t, effective, w.Body.String())
	require.Equal(t, typeYAML, w.Header().Get("Content-Type"))
	refused(t, g.do("GET", "/agents/"+uid2+"/effective-config", ""), http.StatusNotFound)
	refused(t, g.do("DELETE", "/agents/"+uid1, ""), http.StatusConflict)
	require.Equal(t, http.StatusNoContent, g.do("DELETE", "/agents/"+uid2, "").Code)
	refused(t, g.do("DELETE", "/agents/"+uid2, ""), http.StatusNotFound)
	require.Equal(t, http.StatusAccepted, g.do("POST", "/agents/"+uid1+"/restart", "").Code)
	require.Equal(t, http.StatusAccepted, g.do("POST", "/agents/"+uid1+"/rotate-credential", "").Code)

	require.JSONEq(t, `{"hash": "", "files": []}`, g.do("GET", "/agents/"+uid1+"/desired-config", "").Body.String())
	g.control.desired = fleet.DesiredSet{Hash: "h", Files: []fleet.File{{Name: "0000-a", Configuration: "a", Version: 1, Body: []byte("x")}}}
	desired := get[apiv1.DesiredConfig](t, g.do("GET", "/agents/"+uid1+"/desired-config", ""), http.StatusOK)
	require.Equal(t, apiv1.DesiredFile{Name: "0000-a", Configuration: "a", Version: 1, Body: "x"}, desired.Files[0])
	series := get[map[string]any](t, g.do("GET", "/agents/"+uid1+"/throughput", ""), http.StatusOK)
	require.Equal(t, []any{}, series["queue"])
}

func TestAgentsAreListed(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	require.JSONEq(t, `{"agents": [], "next_cursor": "", "total": 0}`, g.do("GET", "/agents", "").Body.String())
	g.saveAgents(t,
		fleet.Agent{UID: uid1, Connected: true, Identifying: map[string]string{"env": "prod", "quote": "'; DROP TABLE agents; --"}},
		fleet.Agent{UID: uid2, Identifying: map[string]string{"env": "dev"}})
	for query, total := range map[string]int{
		"": 2, "selector=env==prod": 1, "selector=" + url.QueryEscape("env in (prod,dev)"): 2, "state=healthy": 1, "state=disconnected": 1,
		"q=DROP": 1, "q=" + url.QueryEscape("' OR 1=1 --"): 0, "selector=" + url.QueryEscape(`quote="'; DROP TABLE agents; --"`): 1,
		"selector=" + url.QueryEscape("env=' OR '1'='1"): 0, "q=%25": 0, "hidden=true": 2, "q=%00": 0,
	} {
		require.Equal(t, total, get[apiv1.Agents](t, g.do("GET", "/agents?"+query, ""), http.StatusOK).Total, query)
	}
	first := get[apiv1.Agents](t, g.do("GET", "/agents?limit=1", ""), http.StatusOK)
	require.Equal(t, uid1, first.Agents[0].InstanceUID)
	second := get[apiv1.Agents](t, g.do("GET", "/agents?limit=1&cursor="+first.NextCursor, ""), http.StatusOK)
	require.Equal(t, uid2, second.Agents[0].InstanceUID)
	require.Empty(t, second.NextCursor)
	for _, query := range []string{
		"limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "cursor=x", "state=x", "selector=a+in", "selector=%ff",
		"q=%ff", "x=1", "hidden=1", "a;b", "%zz", "Limit=1",
	} {
		refused(t, g.do("GET", "/agents?"+query, ""), http.StatusBadRequest)
	}
}

func TestTimelines(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	for i := range 5 {
		e := fleet.Event{Kind: fleet.AgentConnected, Agent: uid1, Version: i + 1}
		require.NoError(t, g.store.AppendEvents(context.Background(), e, fleet.Event{Kind: fleet.RolloutStarted, Rollout: "r", Configuration: "c"}))
	}
	var versions []int
	cursor := ""
	for range 3 {
		page := get[apiv1.Events](t, g.do("GET", "/agents/"+uid1+"/events?limit=2"+cursor, ""), http.StatusOK)
		for _, e := range page.Events {
			versions = append(versions, e.Version)
		}
		cursor = "&cursor=" + page.NextCursor
	}
	require.Equal(t, []int{5, 4, 3, 2, 1}, versions)
	require.Equal(t, "&cursor=", cursor)
	for query, n := range map[string]int{"": 10, "agent=" + uid1: 5, "rollout=r": 5, "configuration=c": 5, "rollout=r&agent=" + uid1: 0, "limit=10": 10} {
		page := get[apiv1.Events](t, g.do("GET", "/audit?"+query, ""), http.StatusOK)
		require.Len(t, page.Events, n, query)
		require.Empty(t, page.NextCursor)
	}
	for _, query := range []string{"cursor=0", "cursor=x", "cursor=-1", "cursor=99999999999999999999", "limit=0"} {
		refused(t, g.do("GET", "/audit?"+query, ""), http.StatusBadRequest)
	}
	refused(t, g.do("GET", "/rollouts/none/events", ""), http.StatusNotFound)
}

func TestAgentsThatAreLongGoneAreHidden(t *testing.T) {
	t.Parallel()
	g := newDev(t)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	g.API.now, g.API.hideAfter = func() time.Time { return now }, time.Hour
	g.saveAgents(t, fleet.Agent{UID: uid1, LastSeen: now.Add(-2 * time.Hour)}, fleet.Agent{UID: uid2, LastSeen: now.Add(-time.Minute)})
	for query, total := range map[string]int{"": 1, "?hidden=false": 1, "?hidden=true": 2} {
		require.Equal(t, total, get[apiv1.Agents](t, g.do("GET", "/agents"+query, ""), http.StatusOK).Total, query)
	}
	get[apiv1.Agent](t, g.do("GET", "/agents/"+uid1, ""), http.StatusOK)
}
