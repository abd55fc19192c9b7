package main

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/collie-otel/collie/internal/apiv1"
)

const (
	uidA = "0190c1d2-0000-7000-8000-00000000000a"
	uidB = "0190c1d2-0000-7000-8000-00000000000b"
	uidC = "0190c1d3-0000-7000-8000-00000000000c"
	uidD = "0190c1d4-0000-7000-8000-00000000000d"
)

func exampleAgents() []apiv1.Agent {
	takes := []string{"ReportsStatus", "AcceptsRemoteConfig"}
	return []apiv1.Agent{
		{
			InstanceUID: uidA, State: "healthy", Connected: true, Transport: "ws", LastSeen: before(2 * time.Minute), Version: "0.159.0",
			FirstSeen: before(72 * time.Hour), ConnectedSince: before(5 * time.Hour), Capabilities: takes,
			IdentifyingAttributes:    map[string]string{"service.name": "otelcol-collie"},
			NonIdentifyingAttributes: map[string]string{"host.name": "web-1", "odd": "\x1b[2J"},
			Health:                   &apiv1.Health{Healthy: true, Status: "StatusOK", StartTime: before(5 * time.Hour)},
			RemoteConfig:             apiv1.RemoteConfig{DesiredHash: "aaaaaaaaaaaa", ReportedHash: "aaaaaaaaaaaa", Status: "APPLIED", OfferedAt: before(time.Hour)},
			ConnectionSettings:       apiv1.ConnectionSettings{OfferedHash: "c", Status: "APPLIED"},
			Packages:                 []apiv1.PackageStatus{{Name: "otelcol", Version: "1.0", OfferedVersion: "1.1", Status: "InstallFailed", Error: "bad signature"}},
			Duplicates:               2,
		},
		{
			InstanceUID: uidB, State: "config_failed", Connected: true, Transport: "http", LastSeen: before(3 * time.Minute), Capabilities: takes,
			NonIdentifyingAttributes: map[string]string{"host.name": "web-2"},
			RemoteConfig:             apiv1.RemoteConfig{DesiredHash: "bbbbbbbbbbbb", ReportedHash: "bbbbbbbbbbbb", Status: "FAILED", Error: "exporters::otlp: " + strings.Repeat("long ", 40)},
		},
		{
			InstanceUID: uidC, State: "unhealthy", Connected: true, Transport: "ws", LastSeen: before(30 * time.Hour), Capabilities: takes,
			IdentifyingAttributes: map[string]string{"service.instance.id": "instance-c"},
			RemoteConfig:          apiv1.RemoteConfig{DesiredHash: "cccccccccccc", Status: "UNSET"},
			Health: &apiv1.Health{Components: map[string]apiv1.Health{"pipeline:traces": {Components: map[string]apiv1.Health{
				"exporter:otlp": {LastError: "connection refused\nand more"},
			}}}},
		},
		{InstanceUID: uidD, State: "disconnected", LastSeen: before(72 * time.Hour), RemoteConfig: apiv1.RemoteConfig{Status: "UNSET"}},
	}
}

func TestAgentsList(t *testing.T) {
	t.Parallel()
	agents := exampleAgents()
	server := newFakeServer(t, answers{"GET /agents": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			write(w, r, apiv1.Agents{Agents: agents[:2], NextCursor: "2", Total: 4})
			return
		}
		write(w, r, apiv1.Agents{Agents: agents[2:], Total: 4})
	}})
	code, stdout, stderr := server.run(t, "agents list --state healthy -q web -l a=b")
	require.Equal(t, exitDone, code, stderr)
	golden(t, "agents", stdout)
	require.Equal(t, "4 agents: 1 disconnected, 1 config_failed, 1 unhealthy, 1 healthy\n", stderr)
	require.Equal(t, []string{
		"GET /agents?limit=500&q=web&selector=a%3Db&state=healthy", "GET /agents?cursor=2&limit=500&q=web&selector=a%3Db&state=healthy",
	}, server.asked())

	for format, decode := range map[string]func(string, any) error{
		"json": func(text string, to any) error { return json.Unmarshal([]byte(text), to) },
		"yaml": func(text string, to any) error { return yaml.UnmarshalStrict([]byte(text), to) },
	} {
		code, stdout, stderr = server.run(t, "agents list -o "+format)
		require.Equal(t, exitDone, code)
		require.Empty(t, stderr)
		var got apiv1.Agents
		require.NoError(t, decode(stdout, &got))
		require.Len(t, got.Agents, 4)
		require.Equal(t, 4, got.Total)
	}
}

func TestAgentsListOfNone(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{"GET /agents": apiv1.Agents{Agents: []apiv1.Agent{}}})
	for line, want := range map[string]string{
		"agents list":               "no agents: connect one as configs/managed-agent.yaml does; --hidden shows those that have been away for long\n",
		"agents list --hidden":      "no agents: connect one as configs/managed-agent.yaml does\n",
		"agents list -l a=b":        "no agents match\n",
		"agents list -q x --hidden": "no agents match\n",
	} {
		code, stdout, stderr := server.run(t, line)
		require.Equal(t, exitDone, code)
		require.Empty(t, stdout)
		require.Equal(t, want, stderr)
	}
}

func TestAgentsListWatchTellsChanges(t *testing.T) {
	t.Parallel()
	agents := exampleAgents()[:3]
	ill := agents[2]
	ill.State, ill.InstanceUID = "unhealthy", uidA
	server := newFakeServer(t, answers{
		"GET /agents": inTurn(apiv1.Agents{Agents: agents[:2]}, apiv1.Agents{Agents: []apiv1.Agent{ill}}),
		"GET /events": announce("agent"),
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, err buffer
	ended := make(chan int)
	go func() {
		ended <- execute(ctx, streams{out: &out, err: &err}, []string{"agents", "list", "--watch", "--server", server.url})
	}()
	require.Eventually(t, func() bool { return strings.Count(out.String(), "\n") == 4 }, 10*time.Second, 5*time.Millisecond, "%s%s", &out, &err)
	cancel()
	require.Equal(t, exitDone, <-ended)
	golden(t, "agents_watch", out.String())
	require.Empty(t, err.String())
}

func TestAgentsGet(t *testing.T) {
	t.Parallel()
	agents := exampleAgents()
	server := newFakeServer(t, answers{
		"GET /agents":       apiv1.Agents{Agents: agents, Total: 4},
		"GET /agents/{uid}": agents[0],
	})
	code, stdout, stderr := server.run(t, "agents get "+strings.ToUpper(uidA))
	require.Equal(t, exitDone, code, stderr)
	golden(t, "agent", stdout)
	for _, line := range []string{"agents get web-1", "agents get 0190C1D3"} {
		code, _, stderr = server.run(t, line)
		require.Equal(t, exitDone, code, stderr)
	}
	code, _, stderr = server.run(t, "agents get 0190c1d2")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "collie agents get: 0190c1d2 names 2 agents, "+uidA+" (web-1), "+uidB+" (web-2): give more of the UID\n", stderr)
	code, _, stderr = server.run(t, "agents get web")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "collie agents get: no agent has a UID that begins with \"web\", or this host.name: see collie agents list\n", stderr)
	require.Equal(t, []string{
		"GET /agents/" + uidA, "GET /agents?limit=500&q=web-1", "GET /agents/" + uidA, "GET /agents?limit=500&q=0190C1D3", "GET /agents/" + uidC,
		"GET /agents?limit=500&q=0190c1d2", "GET /agents?limit=500&q=web",
	}, server.asked())
}

func TestAgentsConfig(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"GET /agents/{uid}/effective-config": "# collector.yaml\nreceivers: {}\r\n",
		"GET /agents/{uid}/desired-config": apiv1.DesiredConfig{Hash: "x", Files: []apiv1.DesiredFile{
			{Name: "10-base", Configuration: "base", Version: 3, Body: "a: 1"}, {Name: "20-more", Configuration: "edge/more", Version: 1, Body: "b: 2\n"},
		}},
	})
	for line, want := range map[string]string{
		"agents config " + uidA:              "# collector.yaml\nreceivers: {}\r\n",
		"agents config " + uidA + " -o yaml": "# collector.yaml\nreceivers: {}\r\n",
		"agents config " + uidA + " -o json": "{\n  \"effective_config\": \"# collector.yaml\\nreceivers: {}\\r\\n\"\n}\n",
		"agents config --desired " + uidA:    "# 10-base: base@3\na: 1\n---\n# 20-more: edge/more@1\nb: 2\n",
	} {
		code, stdout, stderr := server.run(t, line)
		require.Equal(t, exitDone, code, stderr)
		require.Equal(t, want, stdout, line)
	}
	empty := newFakeServer(t, answers{"GET /agents/{uid}/desired-config": apiv1.DesiredConfig{}})
	_, stdout, _ := empty.run(t, "agents config --desired "+uidA)
	require.Contains(t, stdout, "# nothing")
}

func TestAgentsActions(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"POST /agents/{uid}/restart":           "",
		"POST /agents/{uid}/rotate-credential": "",
		"DELETE /agents/{uid}":                 apiv1.Problem{Status: 409, Detail: "it is connected"},
	})
	for line, want := range map[string]string{"restart": "is asked to restart", "rotate": "is offered a new credential"} {
		code, stdout, stderr := server.run(t, "agents "+line+" "+uidA)
		require.Equal(t, exitDone, code, stderr)
		require.Contains(t, stdout, uidA+" "+want)
	}
	code, stdout, stderr := server.run(t, "agents forget "+uidA)
	require.Equal(t, exitFailed, code)
	require.Empty(t, stdout)
	require.Equal(t, "collie agents forget: it is connected\n", stderr)
	require.Contains(t, server.asked(), "DELETE /agents/"+uidA)
}

func TestThroughput(t *testing.T) {
	t.Parallel()
	var accepted, queue []*float64
	for i := range 120 {
		v, zero := float64(i*100), 0.0
		accepted, queue = append(accepted, &v), append(queue, &zero)
	}
	accepted[0], accepted[1] = nil, nil
	server := newFakeServer(t, answers{"GET /agents/{uid}/throughput": apiv1.Series{Interval: "30s", Accepted: accepted, Queue: queue, Sent: []*float64{nil}}})
	code, stdout, stderr := server.run(t, "agents throughput "+uidA)
	require.Equal(t, exitDone, code, stderr)
	golden(t, "throughput", stdout)

	fresh := newFakeServer(t, answers{"GET /agents/{uid}/throughput": apiv1.Series{Interval: "30s"}})
	_, stdout, _ = fresh.run(t, "agents throughput "+uidA)
	require.Equal(t, "no figures yet: the first ones come within a minute\n", stdout)

	none := newFakeServer(t, answers{"GET /agents/{uid}/throughput": apiv1.Problem{Status: 404, Detail: "not found"}})
	code, _, stderr = none.run(t, "agents throughput "+uidA)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "no telemetry of "+uidA+": offer it own_metrics")
}

func exampleEvents() []apiv1.Event {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.FixedZone("", 3600))
	return []apiv1.Event{
		{ID: 4, Time: at, Actor: "t-1", Kind: "rollout_failed", Agent: uidA, Configuration: "gw", Version: 2, Rollout: "r-1", Message: "errors:\n\n  bad port\nbad host\n"},
		{ID: 3, Time: at, Actor: "dev", Kind: "configuration_deleted", Configuration: "gw"},
		{ID: 2, Time: at, Actor: uidA, Kind: "applied", Agent: uidA, Hash: "0123456789abcdef"},
		{ID: 1, Time: at, Actor: "server", Kind: "token_created"},
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	page := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			write(w, r, apiv1.Events{Events: exampleEvents()[:2], NextCursor: "3"})
			return
		}
		write(w, r, apiv1.Events{Events: exampleEvents()[2:]})
	}
	server := newFakeServer(t, answers{"GET /audit": page, "GET /agents/{uid}/events": page, "GET /rollouts/{id}/events": page})
	for _, tt := range [][2]string{{"audit", "events"}, {"agents events --limit 0 " + uidA, "events_agent"}, {"rollout events r-1", "events_rollout"}} {
		code, stdout, stderr := server.run(t, tt[0])
		require.Equal(t, exitDone, code, stderr)
		golden(t, tt[1], stdout)
	}
	code, stdout, _ := server.run(t, "audit --limit 2 -o json")
	require.Equal(t, exitDone, code)
	var got apiv1.Events
	require.NoError(t, json.Unmarshal([]byte(stdout), &got))
	require.Equal(t, "3", got.NextCursor)
	require.Equal(t, []string{
		"GET /audit?limit=50", "GET /audit?cursor=3&limit=48", "GET /agents/" + uidA + "/events?limit=500",
		"GET /agents/" + uidA + "/events?cursor=3&limit=500", "GET /rollouts/r-1/events?limit=50", "GET /rollouts/r-1/events?cursor=3&limit=48",
		"GET /audit?limit=2",
	}, server.asked())
}
