package overlay

import (
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/collector/component"
)

// Mode says what the local configuration contributes beside remote configuration.
type Mode string

const (
	// ModeMerge merges remote configuration over all of the local one. The zero value is the same.
	ModeMerge Mode = "merge"
	// ModeReplace takes only extensions and service::extensions of the local one.
	ModeReplace Mode = "replace"
)

// Input is what a configuration is made of. Order, later over earlier: Base, Telemetry, Remote in name order (the empty
// name is first), Connections, guard.
type Input struct {
	// Base is the local configuration, its references unresolved.
	Base map[string]any
	// Telemetry is the overlay that the function Telemetry gave; nil is none.
	Telemetry map[string]any
	// Remote are the files of the remote configuration.
	Remote []File
	// Connections returns the overlay of other connection settings for what has been merged so far; nil is none. The map
	// that it is given is its own.
	Connections func(merged map[string]any) (map[string]any, error)
	// Mode is how Base counts.
	Mode Mode
	// ExtensionID is the id of the extension that holds the connection to the server, as in "opamp". It and its entry in
	// service::extensions are put back as they are in Base, whatever was merged over them. Empty means no guard.
	ExtensionID string
	// Keep are the ids of further extensions that are guarded like it, e.g. the one that authenticates it.
	Keep []string
}

// Merge returns the configuration that in describes. Maps merge deeply, lists are replaced, null replaces (a component that
// is null is there, with its defaults), service::extensions is united: Base's entries first. Errors say which layer is wrong
// and, for remote files, in which line.
func Merge(in Input) (map[string]any, error) {
	base, err := tree(in.Base)
	if err != nil {
		return nil, fmt.Errorf("base configuration: %w", err)
	}
	g, err := newGuard(base, in)
	if err != nil {
		return nil, fmt.Errorf("base configuration: %w", err)
	}
	if base, err = contribution(base, in.Mode); err != nil {
		return nil, err
	}
	telemetry, err := tree(in.Telemetry)
	if err != nil {
		return nil, fmt.Errorf("own telemetry settings: %w", err)
	}
	remote, err := decodeAll(in.Remote)
	if err != nil {
		return nil, err
	}
	m := merger{out: map[string]any{}}
	for _, l := range slices.Concat([]layer{{"base configuration", base}, {"own telemetry settings", telemetry}}, remote) {
		if err := m.add(l); err != nil {
			return nil, err
		}
	}
	if err := m.connect(in.Connections); err != nil {
		return nil, fmt.Errorf("connection settings: %w", err)
	}
	g.restore(&m)
	m.setExtensions()
	return m.out, nil
}

// contribution is what base gives in a mode.
func contribution(base map[string]any, mode Mode) (map[string]any, error) {
	switch mode {
	case ModeMerge, "":
		return base, nil
	case ModeReplace:
		out := map[string]any{}
		if extensions, there := base["extensions"]; there {
			out["extensions"] = extensions
		}
		if service, ok := base["service"].(map[string]any); ok && service["extensions"] != nil {
			out["service"] = map[string]any{"extensions": service["extensions"]}
		}
		return out, nil
	}
	return nil, fmt.Errorf("unknown mode %q; there are %q and %q", mode, ModeMerge, ModeReplace)
}

// merger merges layers; it keeps service::extensions apart from the rest, since that list is united.
type merger struct {
	out        map[string]any
	extensions []any
}

// add merges l, which becomes part of the result.
func (m *merger) add(l layer) error {
	if err := checkPlain(l.tree); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if service, ok := l.tree["service"].(map[string]any); ok {
		list, _ := service["extensions"].([]any)
		for _, id := range list {
			m.list(id.(string))
		}
	}
	mergeInto(m.out, l.tree)
	return nil
}

// list enters an id in service::extensions, once in whatever spelling.
func (m *merger) list(id string) {
	if !slices.ContainsFunc(m.extensions, func(listed any) bool { return sameID(listed.(string), id) }) {
		m.extensions = append(m.extensions, id)
	}
}

func (m *merger) connect(connections func(map[string]any) (map[string]any, error)) error {
	if connections == nil {
		return nil
	}
	merged, err := tree(m.out)
	if err != nil {
		return err
	}
	overlay, err := connections(merged)
	if err != nil {
		return err
	}
	if overlay, err = tree(overlay); err != nil {
		return err
	}
	return m.add(layer{"overlay", overlay})
}

func (m *merger) setExtensions() {
	if len(m.extensions) == 0 {
		return
	}
	service, ok := m.out["service"].(map[string]any)
	if !ok {
		service = map[string]any{}
		m.out["service"] = service
	}
	service["extensions"] = m.extensions
}

// checkPlain makes sure that the parts the guard and the union work on can be read before references are resolved.
func checkPlain(t map[string]any) error {
	for _, key := range []string{"extensions", "service"} {
		switch t[key].(type) {
		case nil, map[string]any:
		default:
			return fmt.Errorf("%s is not a map written out in place", key)
		}
	}
	service, _ := t["service"].(map[string]any)
	list, ok := service["extensions"].([]any)
	if !ok && service["extensions"] != nil {
		return errors.New("service::extensions is not a list written out in place")
	}
	for i, id := range list {
		if _, ok := id.(string); !ok {
			return fmt.Errorf("service::extensions::%d is not the id of an extension", i)
		}
	}
	return nil
}

// guarded is one extension as it is in the base configuration.
type guarded struct {
	key   string
	value any
}

type guard []guarded

func newGuard(base map[string]any, in Input) (guard, error) {
	if err := checkPlain(base); err != nil {
		return nil, err
	}
	if in.ExtensionID == "" {
		return nil, nil
	}
	pristine, err := tree(base)
	if err != nil {
		return nil, err
	}
	extensions, _ := pristine["extensions"].(map[string]any)
	var g guard
	for _, id := range append([]string{in.ExtensionID}, in.Keep...) {
		before := len(g)
		for key, value := range extensions {
			if sameID(key, id) {
				g = append(g, guarded{key, value})
			}
		}
		if len(g) != before+1 {
			return nil, fmt.Errorf("extensions::%s is there %d times; it must be there once, or no remote configuration can be accepted",
				id, len(g)-before)
		}
	}
	return g, nil
}

func (g guard) restore(m *merger) {
	if len(g) == 0 {
		return
	}
	extensions, ok := m.out["extensions"].(map[string]any)
	if !ok {
		extensions = map[string]any{}
		m.out["extensions"] = extensions
	}
	for _, e := range g {
		for key := range extensions {
			if sameID(key, e.key) {
				delete(extensions, key)
			}
		}
		extensions[e.key] = e.value
		m.list(e.key)
	}
}

// sameID compares ids as the Collector does, which ignores spaces around type and name.
func sameID(a, b string) bool {
	if a == b {
		return true
	}
	var x, y component.ID
	return x.UnmarshalText([]byte(a)) == nil && y.UnmarshalText([]byte(b)) == nil && x == y
}
