package control

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/fleet"
)

// What is known of an OpAMPBridge of the OpenTelemetry operator: it deletes each resource under its management that a remote
// configuration does not name, is healthy whatever its Collectors are, and has another UID after each restart.

// managedLabel marks resources that a bridge may delete.
const managedLabel = "opentelemetry.io/opamp-managed"

// maxResource is that of a resource in Kubernetes, and maxResources of all of an agent that are read: YAML takes 50 times its size in
// memory.
const (
	maxResource  = 3 << 19
	maxResources = 16 << 20
)

func namesManaged(body []byte) bool { return bytes.Contains(body, []byte(managedLabel)) }

// isManaged says whether a file of an effective configuration is such a resource.
func isManaged(body []byte) bool {
	if !namesManaged(body) {
		return false
	}
	if len(body) > maxResource {
		return true
	}
	var resource struct {
		Metadata struct {
			Labels map[string]string `yaml:"labels"`
		} `yaml:"metadata"`
	}
	// What cannot be read counts: better to withhold an offer than to delete a Collector.
	if err := yaml.Unmarshal(body, &resource); err != nil {
		return true
	}
	value, there := resource.Metadata.Labels[managedLabel]
	return there && !strings.EqualFold(value, "false")
}

// withheld says why a set must not be offered to a bridge, or nothing. A rollout by force overrules it while it
// lasts: what comes later, of this or another configuration, was not insisted on.
func (e *entry) withheld(set fleet.DesiredSet) string {
	if !e.agent.IsBridge() || set.Forced {
		return ""
	}
	if e.managed == nil {
		return "what this OpAMPBridge manages is not known yet; it deletes what it is not sent"
	}
	missing := maps.Clone(e.managed)
	for _, f := range set.Files {
		delete(missing, f.Name)
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("this OpAMPBridge would delete %s: give each a configuration of that name, or use a rollout with force",
		strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
}

// bridgeHealth is the health that the children's own numbers tell: "1/3" are replicas that are ready, and wanted.
func bridgeHealth(h *fleet.Health) *fleet.Health {
	out := *h
	out.Components = make(map[string]fleet.Health, len(h.Components))
	for _, name := range slices.Sorted(maps.Keys(h.Components)) {
		child := h.Components[name]
		ready, wanted, found := strings.Cut(child.Status, "/")
		r, errReady := strconv.Atoi(ready)
		w, errWanted := strconv.Atoi(wanted)
		if found && errReady == nil && errWanted == nil && r < w {
			child.Healthy = false
			child.LastError = cmp.Or(child.LastError, fmt.Sprintf("%d of %d replicas are ready", r, w))
		}
		out.Components[name] = child
		if !child.Healthy && out.Healthy {
			out.Healthy = false
			out.LastError = cmp.Or(out.LastError, name+": "+cmp.Or(child.LastError, child.Status, "not healthy"))
		}
	}
	return &out
}

// notOfABridge are the attributes that change when a bridge restarts, or that every bridge has.
var notOfABridge = []string{"host.name", "service.instance.id", "service.version", "service.name", "os.family", "os.type", "opentelemetry.io/opamp.bridge.mode"}

// sameBridge finds the bridge that this one was before its restart: one that is away, in the same mode, with the same attributes of its
// own, of which there must be one at least. The caller holds mu.
func (c *Control) sameBridge(e *entry) uuid.UUID {
	own := func(a *fleet.Agent) map[string]string {
		all := a.Attributes()
		maps.DeleteFunc(all, func(k, _ string) bool { return slices.Contains(notOfABridge, k) })
		return all
	}
	mine := own(&e.agent)
	if len(mine) == 0 || e.peer.owner != "" { // a credential of its own says which one it is
		return uuid.Nil
	}
	var found *entry
	for _, other := range c.agents {
		if other == e || other.agent.Connected || !other.agent.IsBridge() || !other.agent.FirstSeen.Before(e.agent.FirstSeen) ||
			!maps.Equal(mine, own(&other.agent)) {
			continue
		}
		if found == nil || other.agent.LastSeen.After(found.agent.LastSeen) {
			found = other
		}
	}
	if found == nil {
		return uuid.Nil
	}
	return found.uid
}
