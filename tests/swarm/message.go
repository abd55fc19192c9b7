package swarm

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/plan"
)

// Capabilities are what each agent announces.
const Capabilities = uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
	protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig |
	protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat)

// variants is how many configurations there are in a fleet that was offered none.
const variants = 4

// texts are the configurations that agents run: those of the same base and the same offer share one.
type texts struct {
	base [variants][]byte

	mu   sync.Mutex // guards made
	made map[string][]byte
}

func newTexts(size int) *texts {
	t := &texts{made: map[string][]byte{}}
	for v := range t.base {
		var b bytes.Buffer
		_, _ = fmt.Fprintf(&b, "# base %d\nreceivers: {otlp: {protocols: {grpc: {}, http: {}}}}\nexporters: {nop: {}}\nprocessors:\n", v)
		for i := 0; b.Len() < size; i++ {
			_, _ = fmt.Fprintf(&b, "  attributes/%d: {actions: [{key: base.%d.%d, value: of the fleet, action: upsert}]}\n", i, v, i)
		}
		t.base[v] = b.Bytes()[:size]
	}
	return t
}

// of is what agent i runs with the files that it was offered.
func (t *texts) of(i int, hash string, files map[string][]byte) []byte {
	base := t.base[i%variants]
	if len(files) == 0 {
		return base
	}
	key := fmt.Sprint(i%variants, " ", hash)
	t.mu.Lock()
	defer t.mu.Unlock()
	text, ok := t.made[key]
	if !ok {
		text = together(base, files)
		t.made[key] = text
	}
	return text
}

func together(base []byte, files map[string][]byte) []byte {
	text := slices.Clone(base)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text = append(fmt.Appendf(text, "\n# %s\n", name), files[name]...)
	}
	return text
}

// healthTree is a Collector with twelve components, all of them well, the same for all agents.
func healthTree(start time.Time) *protobufs.ComponentHealth {
	well := func(children map[string]*protobufs.ComponentHealth) *protobufs.ComponentHealth {
		return &protobufs.ComponentHealth{
			Healthy: true, Status: "StatusOK", StartTimeUnixNano: uint64(start.UnixNano()), StatusTimeUnixNano: uint64(start.UnixNano()), ComponentHealthMap: children,
		}
	}
	pipeline := func(signal string) *protobufs.ComponentHealth {
		return well(map[string]*protobufs.ComponentHealth{
			"receiver:otlp": well(nil), "processor:batch": well(nil), "exporter:otlp_grpc/" + signal: well(nil),
		})
	}
	return well(map[string]*protobufs.ComponentHealth{
		"pipeline:traces": pipeline("traces"), "pipeline:metrics": pipeline("metrics"),
		"extensions": well(map[string]*protobufs.ComponentHealth{"extension:opamp": well(nil), "extension:health_check": well(nil), "extension:file_storage": well(nil)}),
	})
}

// description is that of agent i, padded so that it has the promised size together with the health.
func description(c *Config, i int, uid uuid.UUID, health *protobufs.ComponentHealth) *protobufs.AgentDescription {
	identifying, other := c.Attributes(i)
	d := &protobufs.AgentDescription{
		IdentifyingAttributes: append(keyValues(identifying), keyValue("service.instance.id", uid.String())), NonIdentifyingAttributes: keyValues(other),
	}
	if missing := c.StatusBytes - proto.Size(d) - proto.Size(health) - 30; missing > 0 {
		d.NonIdentifyingAttributes = append(d.NonIdentifyingAttributes, keyValue("process.command_args", strings.Repeat("-", missing)))
	}
	return d
}

func keyValues(m map[string]string) []*protobufs.KeyValue {
	all := make([]*protobufs.KeyValue, 0, len(m)+1)
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, keyValue(k, m[k]))
	}
	return all
}

func keyValue(k, v string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: k, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: v}}}
}

func effective(text []byte) *protobufs.EffectiveConfig {
	return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{
		"": {Body: text, ContentType: "text/yaml"},
	}}}
}

// planCapability is what agents announce beside their bits.
func planCapability() *protobufs.CustomCapabilities {
	return &protobufs.CustomCapabilities{Capabilities: []string{plan.Capability}}
}
