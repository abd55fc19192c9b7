// Package inventory knows what a Collector binary contains: it reads what the binary says of itself, and writes and reads
// the table in docs/components.md. It builds nothing; distribution/components does.
package inventory

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kinds are the sections of `otelcol-collie components` in the order of the table, each with the title it has there.
var Kinds = []struct{ Name, Title string }{
	{"receivers", "Receivers"},
	{"processors", "Processors"},
	{"exporters", "Exporters"},
	{"connectors", "Connectors"},
	{"extensions", "Extensions"},
	{"providers", "Configuration providers"},
}

// Component is one component of a Collector.
type Component struct {
	// Name is its type, or the scheme of a provider.
	Name string
	// Module is its Go module with its version.
	Module string
	// Stability is what it promises, e.g. "Stable: logs, metrics, traces"; empty for a provider.
	Stability string
}

// Inventory is the components by kind, each kind sorted by name.
type Inventory map[string][]Component

// Read asks the binary at path.
func Read(ctx context.Context, path string) (Inventory, error) {
	out, err := exec.CommandContext(ctx, path, "components").Output()
	if err != nil {
		return nil, fmt.Errorf("ask %s for its components: %w", path, err)
	}
	var raw map[string]yaml.Node
	if err := yaml.Unmarshal(out, &raw); err != nil {
		return nil, fmt.Errorf("decode the components of %s: %w", path, err)
	}
	inv := Inventory{}
	for _, kind := range Kinds {
		var entries []entry
		node := raw[kind.Name]
		if err := node.Decode(&entries); err != nil {
			return nil, fmt.Errorf("decode the %s of %s: %w", kind.Name, path, err)
		}
		for _, e := range entries {
			inv[kind.Name] = append(inv[kind.Name], e.component())
		}
		slices.SortFunc(inv[kind.Name], func(a, b Component) int { return strings.Compare(a.Name, b.Name) })
	}
	return inv, nil
}

// entry is a component as the Collector prints it.
type entry struct {
	Name, Scheme, Module string
	Stability            map[string]string
}

func (e entry) component() Component {
	return Component{Name: e.Name + e.Scheme, Module: e.Module, Stability: stability(e.Stability)}
}

// levels are the stability levels, the best first.
var levels = []string{"Stable", "Beta", "Alpha", "Development", "Unmaintained", "Deprecated"}

// stability groups the signals by level and leaves out what is not supported.
func stability(bySignal map[string]string) string {
	var parts []string
	for _, level := range levels {
		var signals []string
		for signal, l := range bySignal {
			if l == level && signal != "extension" {
				signals = append(signals, signal)
			}
		}
		slices.Sort(signals)
		switch {
		case bySignal["extension"] == level:
			parts = append(parts, level)
		case len(signals) > 0:
			parts = append(parts, level+": "+strings.Join(signals, ", "))
		}
	}
	return strings.Join(parts, "; ")
}
