package opamp

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/tests/harness"
)

// env is a Collector with an agent, and the server that it talks to.
type env struct {
	t         *testing.T
	transport string
	server    *fakeServer
	overlay   string // the configuration that the case may edit
	config    map[string]any
	collector *harness.Collector
}

// edit changes the extension's configuration; before the start of the Collector or before a reload.
func (e *env) edit(change func(opamp, server map[string]any)) {
	e.t.Helper()
	opamp := e.config["extensions"].(map[string]any)["opamp"].(map[string]any)
	change(opamp, opamp["server"].(map[string]any)[e.transport].(map[string]any))
	e.write()
}

func (e *env) write() {
	e.t.Helper()
	content, err := yaml.Marshal(e.config)
	require.NoError(e.t, err)
	require.NoError(e.t, os.WriteFile(e.overlay, content, 0o600))
}

func newEnv(t *testing.T, transport string) *env {
	t.Helper()
	e := &env{t: t, transport: transport, server: newFakeServer(t), overlay: filepath.Join(t.TempDir(), "opamp.yaml")}
	connection := map[string]any{"endpoint": transport + "://" + e.server.address() + "/v1/opamp"}
	if transport == "http" {
		connection["polling_interval"] = "200ms"
	}
	e.config = map[string]any{
		"extensions": map[string]any{"opamp": map[string]any{
			"server":  map[string]any{transport: connection},
			"storage": map[string]any{"directory": filepath.Join(t.TempDir(), "opamp")},
		}},
		"service": map[string]any{"extensions": []string{"health_check", "opamp"}},
	}
	e.write()
	e.collector = harness.New(t, harness.Options{Configs: []string{"quickstart.yaml", e.overlay}, Env: map[string]string{"APP_TOKEN": "s3cr3t-value", "APP_HOST": "backend.example"}})
	return e
}

// start starts the Collector and returns the agent's first message.
func (e *env) start() received {
	e.t.Helper()
	from := len(e.server.all())
	e.collector.Start()
	first, _ := e.server.await(from, "the first message", func(received) bool { return true })
	return first
}

// startSettled waits until the agent has reported that it is healthy, and nothing else is on its way.
func (e *env) startSettled() (first received, next int) {
	e.t.Helper()
	first = e.start()
	_, next = e.server.await(0, "a healthy agent", func(m received) bool { return m.Health.GetHealthy() })
	return first, next
}

func uidOf(m received) uuid.UUID { return uuid.UUID(m.InstanceUid) }

// isFull says whether a message has all parts of a full report.
func isFull(m received) bool {
	return m.AgentDescription != nil && m.Health != nil && m.EffectiveConfig != nil && m.AvailableComponents != nil
}

// isEmpty says whether a message is a heartbeat: none of the parts that may be left out.
func isEmpty(m received) bool {
	return m.AgentDescription == nil && m.Health == nil && m.EffectiveConfig == nil && m.AvailableComponents == nil && m.CustomCapabilities == nil
}

func attributes(list []*protobufs.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		out[kv.Key] = kv.Value.GetStringValue()
	}
	return out
}
