package fleet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
)

// limit is how long an agent may take for what is asked of it: a supervisor starts a Collector twice.
const limit = 60 * time.Second

// object is a part of a configuration; JSON is YAML.
type object = map[string]any

// file writes a configuration.
func file(t *testing.T, content object) string {
	t.Helper()
	data, err := json.Marshal(content)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// pipeline is a Collector that receives at a port of its own. It exports no metrics of its own: the port of those is not to be had twice.
func pipeline(t *testing.T) object {
	t.Helper()
	return object{
		"receivers": object{"otlp": object{"protocols": object{"grpc": object{"endpoint": fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1"))}}}},
		"exporters": object{"nop": object{}},
		"service": object{
			"telemetry": object{"metrics": object{"level": "none"}},
			"pipelines": object{"traces": object{"receivers": []string{"otlp"}, "exporters": []string{"nop"}}},
		},
	}
}

func environment(t *testing.T) []string {
	t.Helper()
	return []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
}

func healthy(a apiv1.Agent) bool { return a.State == "healthy" }

// effectiveConfig is what the server knows of an agent's.
func effectiveConfig(s *harness.Server, uid string) (text string) {
	s.Must(http.MethodGet, "/agents/"+uid+"/effective-config", nil, &text)
	return text
}

func TestUpstreamExtensionIsListed(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, harness.ServerOptions{})
	uid := uuid.Must(uuid.NewV7()).String()
	config := pipeline(t)
	config["extensions"] = object{"opamp": object{
		"server":            object{"ws": object{"endpoint": server.WebSocket()}},
		"instance_uid":      uid,
		"agent_description": object{"non_identifying_attributes": object{"team": "upstream"}},
	}}
	config["service"].(object)["extensions"] = []string{"opamp"}
	collector := harness.StartProcess(t, "upstream", environment(t), harness.Binary(t, "test/otelcol-upstream"), "--config="+file(t, config))

	agent := server.AwaitAgent(uid, limit, "the Collector is healthy", healthy)
	require.Equal(t, "otelcol-upstream", agent.IdentifyingAttributes["service.name"])
	require.Equal(t, "0.159.0", agent.Version)
	require.Equal(t, "upstream", agent.NonIdentifyingAttributes["team"])
	require.Equal(t, "linux", agent.NonIdentifyingAttributes["os.type"])
	require.Subset(t, agent.Capabilities, []string{"ReportsStatus", "ReportsEffectiveConfig", "ReportsHealth", "ReportsAvailableComponents"})
	require.NotContains(t, agent.Capabilities, "AcceptsRemoteConfig")
	agent = server.AwaitAgent(uid, limit, "health of the pipeline", func(a apiv1.Agent) bool {
		return a.Health != nil && a.Health.Components["pipeline:traces"].Components["receiver:otlp"].Healthy
	})
	require.NotEmpty(t, agent.AvailableComponentsHash)
	require.Contains(t, effectiveConfig(server, uid), "team: upstream")

	listed := server.Agents("selector", "team=upstream")
	require.Equal(t, 1, listed.Total)
	require.Equal(t, uid, listed.Agents[0].InstanceUID)
	collector.MustStop()
	server.AwaitAgent(uid, limit, "the Collector is away", func(a apiv1.Agent) bool { return a.State == "disconnected" && !a.Connected })
}

// lingering is the program, but for one moment: the supervisor (v0.158.0) loses what a short-lived Collector prints when it has ended
// before that is read, takes it for one without feature gates, and starts it with a component that it does not have.
func lingering(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "otelcol")
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = featuregate ] || exec '%[1]s' \"$@\"\n'%[1]s' \"$@\"\nexec sleep 0.5\n", program)
	require.NoError(t, os.WriteFile(path, []byte(script), 0o700))
	return path
}

func TestUpstreamSupervisorTakesConfigurations(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, harness.ServerOptions{})
	uid := uuid.Must(uuid.NewV7()).String()
	storage := t.TempDir()
	t.Cleanup(func() {
		if log, _ := os.ReadFile(filepath.Join(storage, "agent.log")); t.Failed() {
			t.Logf("the supervised Collector says:\n%s", log)
		}
	})
	supervisor := harness.StartProcess(t, "supervisor", environment(t), harness.Binary(t, "test/opampsupervisor"), "--config="+file(t, object{
		"server":       object{"endpoint": server.WebSocket()},
		"capabilities": object{"accepts_remote_config": true, "reports_remote_config": true},
		"storage":      object{"directory": storage},
		"agent": object{
			"executable": lingering(t, harness.Binary(t, "test/otelcol-upstream")), "instance_id": uid, "bootstrap_timeout": "30s", "config_apply_timeout": "2s",
			"opamp_server_port": harness.FreePort(t, "127.0.0.1"),
			"args":              []string{"--set=service.telemetry.metrics.level=none"},
			"description":       object{"non_identifying_attributes": object{"team": "supervised"}},
		},
	}))
	server.AwaitAgent(uid, limit, "the supervisor is there", func(a apiv1.Agent) bool { return a.Connected && a.NonIdentifyingAttributes["team"] == "supervised" })

	good, err := json.Marshal(pipeline(t))
	require.NoError(t, err)
	rollout := server.RollOut("pipeline", "team=supervised", string(good))
	server.AwaitRollout(rollout.ID, "succeeded", limit)
	first := server.AwaitAgent(uid, limit, "applied and healthy", healthy)
	require.Equal(t, "APPLIED", first.RemoteConfig.Status)
	require.Equal(t, first.RemoteConfig.DesiredHash, first.RemoteConfig.ReportedHash)
	require.Contains(t, effectiveConfig(server, uid), "nop")

	// A configuration that its Collector does not start with goes back.
	rollout = server.RollOut("pipeline", "team=supervised", `{"receivers": {"no_such": {}}}`)
	server.AwaitRollout(rollout.ID, "rolled_back", limit)
	server.AwaitAgent(uid, limit, "back at the first one", func(a apiv1.Agent) bool {
		return healthy(a) && a.RemoteConfig.Status == "APPLIED" && a.RemoteConfig.ReportedHash == first.RemoteConfig.ReportedHash
	})
	supervisor.MustStop()
	server.AwaitAgent(uid, limit, "the supervisor is away", func(a apiv1.Agent) bool { return a.State == "disconnected" })
}

func TestUpstreamClientTakesConfigurations(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "upstreamclient")
	out, err := exec.Command("go", "build", "-C", filepath.Join(harness.Root(t), "tests", "opamp", "upstreamclient"), "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for transport, endpoint := range map[string]func(*harness.Server) string{"ws": (*harness.Server).WebSocket, "http": (*harness.Server).HTTP} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			server := harness.StartServer(t, harness.ServerOptions{})
			uid := uuid.Must(uuid.NewV7()).String()
			client := harness.StartProcess(t, "client", environment(t), program, "-endpoint", endpoint(server), "-instance-uid", uid)
			agent := server.AwaitAgent(uid, limit, "the client is healthy", healthy)
			require.Equal(t, transport, agent.Transport)
			require.Equal(t, map[string]string{"service.name": "upstream"}, agent.IdentifyingAttributes)
			require.Contains(t, effectiveConfig(server, uid), "receivers: {otlp: {}}\n")

			rollout := server.RollOut("base", "service.name=upstream", "exporters: {nop: {}}\n")
			server.AwaitRollout(rollout.ID, "succeeded", limit)
			agent = server.AwaitAgent(uid, limit, "applied", func(a apiv1.Agent) bool { return a.RemoteConfig.Status == "APPLIED" })
			require.Equal(t, agent.RemoteConfig.DesiredHash, agent.RemoteConfig.ReportedHash)

			server.Must(http.MethodPost, "/agents/"+uid+"/restart", nil, nil) // this client takes it as its end
			harness.Await(t, limit, "the client ends", func() (bool, any) { return !client.Running(), client.Log() })
			if transport == "ws" { // over HTTP it says no goodbye, and three missed intervals are long
				server.AwaitAgent(uid, limit, "the client is away", func(a apiv1.Agent) bool { return a.State == "disconnected" })
			}
		})
	}
}
