package control

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/opampserver"
)

const (
	// maxHealth bounds the nodes of a health tree that are kept, and maxDepth its depth.
	maxHealth = 2000
	maxDepth  = 8
	// maxText bounds texts of agents that are kept, in bytes.
	maxText = 4096
	// maxAttributes bounds the attributes of each kind that are kept, and maxDescription their texts together, in bytes.
	maxAttributes  = 256
	maxDescription = 64 << 10
	// maxHealthText bounds the errors in a health tree together; beyond it a node has none.
	maxHealthText = 256 << 10
)

// update is what a message says, in the terms of package fleet. Everything is made before the lock is taken.
type update struct {
	identifying, nonIdentifying map[string]string // nil without a description
	isBridge                    bool
	capabilities                fleet.Capabilities
	custom                      []string
	componentsHash              string
	health                      *fleet.Health
	components                  tree
	configHash                  string
	configStatus                fleet.Status
	configError                 string
	packages                    []fleet.PackageStatus
	packagesHash                string
	connectionHash              string
	connectionStatus            fleet.Status
	connectionError             string
	body                        []byte // nil without an effective configuration
	bodyHash                    string
	managed                     map[string]struct{}
}

// translate reads the state with the message. Parts that did not change are skipped where they cost something.
func translate(r *opampserver.Report) *update {
	s := &r.State
	u := &update{
		capabilities: fleet.Capabilities(s.Capabilities), custom: s.CustomCapabilities,
		componentsHash: hex.EncodeToString([]byte(s.ComponentsHash)), configStatus: fleet.Unset, connectionStatus: fleet.Unset,
	}
	everything := r.New || r.Introduced
	if d := s.Description; d != nil && (everything || r.Changed.Has(opampserver.PartDescription)) {
		u.identifying, u.nonIdentifying = attributes(d.IdentifyingAttributes), attributes(d.NonIdentifyingAttributes)
		u.isBridge = (&fleet.Agent{NonIdentifying: u.nonIdentifying}).IsBridge()
	}
	if h := s.Health; h != nil && (everything || r.Changed.Has(opampserver.PartHealth)) {
		tree := health(h, maxDepth, &healthBudget{nodes: maxHealth, text: maxHealthText})
		u.health, u.components = &tree, fold(tree.Components)
	}
	if c := s.RemoteConfigStatus; c != nil {
		u.configHash, u.configError = hex.EncodeToString(c.LastRemoteConfigHash), text(c.ErrorMessage)
		u.configStatus = status(c.Status.String(), "RemoteConfigStatuses_")
	}
	if c := s.ConnectionSettingsStatus; c != nil {
		u.connectionHash, u.connectionError = hex.EncodeToString(c.LastConnectionSettingsHash), text(c.ErrorMessage)
		u.connectionStatus = status(c.Status.String(), "ConnectionSettingsStatuses_")
	}
	if s.PackageStatuses != nil && (everything || r.Changed.Has(opampserver.PartPackageStatuses)) {
		u.packages, u.packagesHash = packageStatuses(s.PackageStatuses), hex.EncodeToString(s.PackageStatuses.ServerProvidedAllPackagesHash)
	}
	if r.EffectiveConfig != nil {
		u.body, u.managed = effectiveConfig(r.EffectiveConfig)
		u.bodyHash = fleet.ContentHash(u.body)
	}
	return u
}

// text keeps what is UTF-8 of an agent's words, and not too much of it. A clone, so that it does not hold the message.
func text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Clone(strings.ToValidUTF8(s, "\uFFFD"))
}

// shared is text of which a fleet has few: all agents have the same copy.
func shared(s string) string { return unique.Make(text(s)).Value() }

func status(name, prefix string) fleet.Status {
	s := fleet.Status(strings.TrimPrefix(name, prefix))
	if s != fleet.Applied && s != fleet.Applying && s != fleet.Failed {
		return fleet.Unset
	}
	return s
}

// attributes are texts; values of other types than string are JSON.
func attributes(list []*protobufs.KeyValue) map[string]string {
	m := make(map[string]string, min(len(list), maxAttributes))
	left := maxDescription
	for _, kv := range list {
		if kv == nil || len(m) == maxAttributes {
			continue
		}
		value, isText := anyValue(kv.Value, maxDepth).(string)
		if !isText {
			encoded, _ := json.Marshal(anyValue(kv.Value, maxDepth)) // made of what JSON has
			value = string(encoded)
		}
		if left -= min(len(kv.Key), maxText) + min(len(value), maxText); left < 0 {
			break
		}
		m[shared(kv.Key)] = shared(value)
	}
	return m
}

func anyValue(v *protobufs.AnyValue, depth int) any {
	if depth == 0 {
		return "..."
	}
	switch v := v.GetValue().(type) {
	case *protobufs.AnyValue_StringValue:
		return strings.ToValidUTF8(v.StringValue, "\uFFFD")
	case *protobufs.AnyValue_BoolValue:
		return v.BoolValue
	case *protobufs.AnyValue_IntValue:
		return v.IntValue
	case *protobufs.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64) // JSON has no NaN
	case *protobufs.AnyValue_BytesValue:
		return base64.StdEncoding.EncodeToString(v.BytesValue)
	case *protobufs.AnyValue_ArrayValue:
		list := []any{}
		for _, item := range v.ArrayValue.GetValues() {
			list = append(list, anyValue(item, depth-1))
		}
		return list
	case *protobufs.AnyValue_KvlistValue:
		m := map[string]any{}
		for _, kv := range v.KvlistValue.GetValues() {
			m[kv.GetKey()] = anyValue(kv.GetValue(), depth-1)
		}
		return m
	}
	return ""
}

// healthBudget is what is left of a tree's bounds.
type healthBudget struct{ nodes, text int }

// take cuts a text that does not fit any more.
func (b *healthBudget) take(s string) string {
	if b.text -= min(len(s), maxText); b.text < 0 {
		return ""
	}
	return text(s)
}

func health(h *protobufs.ComponentHealth, depth int, left *healthBudget) fleet.Health {
	out := fleet.Health{
		Healthy: h.Healthy, Status: shared(left.take(h.Status)), LastError: left.take(h.LastError),
		StartTime: unixNano(h.StartTimeUnixNano), StatusTime: unixNano(h.StatusTimeUnixNano),
	}
	if depth == 0 || len(h.ComponentHealthMap) == 0 {
		return out
	}
	out.Components = make(map[string]fleet.Health, len(h.ComponentHealthMap))
	for _, name := range slices.Sorted(maps.Keys(h.ComponentHealthMap)) {
		if left.nodes -= 1 + len(name)/128; left.nodes < 0 { // names are short
			break
		}
		if child := h.ComponentHealthMap[name]; child != nil {
			out.Components[shared(name)] = health(child, depth-1, left)
		}
	}
	return out
}

func unixNano(n uint64) time.Time {
	if n == 0 || n > 1<<62 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

func packageStatuses(s *protobufs.PackageStatuses) []fleet.PackageStatus {
	var list []fleet.PackageStatus
	for _, name := range slices.Sorted(maps.Keys(s.Packages)) {
		p := s.Packages[name]
		if p == nil || len(list) == maxAttributes {
			continue
		}
		list = append(list, fleet.PackageStatus{
			Name: text(name), Version: text(p.AgentHasVersion), OfferedVersion: text(p.ServerOfferedVersion), Error: text(p.ErrorMessage),
			Status: strings.TrimPrefix(p.Status.String(), "PackageStatusEnum_"),
		})
	}
	return list
}

// effectiveConfig is the one file as it is, or all of them as documents, each headed by its key. managed are the resources of an
// OpAMPBridge among them; nil if it names no files, not even none.
func effectiveConfig(c *protobufs.EffectiveConfig) (body []byte, managed map[string]struct{}) {
	files := c.GetConfigMap().GetConfigMap()
	if c.GetConfigMap() != nil {
		managed = map[string]struct{}{}
	}
	var b bytes.Buffer
	read := 0
	for i, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name].GetBody()
		if namesManaged(content) {
			if read += len(content); read > maxResources || isManaged(content) {
				managed[name] = struct{}{}
			}
		}
		if len(files) == 1 {
			return bytes.Clone(content), managed
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		b.WriteString("# " + strings.NewReplacer("\n", " ", "\r", " ").Replace(name) + "\n")
		b.Write(content)
		if !bytes.HasSuffix(content, []byte("\n")) {
			b.WriteByte('\n')
		}
	}
	return append([]byte{}, b.Bytes()...), managed
}
