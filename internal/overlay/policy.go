package overlay

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/component"
)

// kinds are the sections of a configuration that declare components.
var kinds = []string{"connectors", "exporters", "extensions", "processors", "receivers"}

// Policy says which components a remote configuration may declare. It is local: nothing remote changes it.
type Policy struct {
	// Allowed has, per kind (receivers, processors, exporters, connectors, extensions), types and full ids. A kind that is
	// absent is not restricted; one with an empty list allows nothing.
	Allowed map[string][]string
	// Denied has the same shape and wins over Allowed.
	Denied map[string][]string
	// Aliases returns the other names of a component type of a kind; otlp and otlp_grpc are one exporter. Naming either in a
	// list means both; it need not know both directions. Nil means that there are none.
	Aliases func(kind, componentType string) []string
}

// Validate reports all mistakes of the policy itself: kinds that there are not and malformed ids.
func (p Policy) Validate() error {
	var errs []error
	check := func(path string, lists map[string][]string) {
		for _, kind := range sortedKeys(lists) {
			if !slices.Contains(kinds, kind) {
				errs = append(errs, fmt.Errorf("%s::%s: not a kind of component; there are %s", path, kind, strings.Join(kinds, ", ")))
				continue
			}
			for _, entry := range lists[kind] {
				if _, err := parseID(entry); err != nil {
					errs = append(errs, fmt.Errorf("%s::%s: %w", path, kind, err))
				}
			}
		}
	}
	check("remote_config::components_allowed", p.Allowed)
	check("remote_config::components_denied", p.Denied)
	return errors.Join(errs...)
}

// Check returns everything in a remote configuration (see Remote) that the policy forbids, sorted; nil when there is nothing.
// It is about the components that are declared. Of a kind that is restricted, whatever cannot be read before references are
// resolved is forbidden too: a reference in place of the section, a key that is not plainly an id. References elsewhere, in
// a component's own settings say, are none of its business.
func (p Policy) Check(remote map[string]any) []error {
	t, err := tree(remote)
	if err != nil {
		return []error{fmt.Errorf("remote configuration: %w", err)}
	}
	var errs []error
	for _, kind := range kinds {
		if _, isAllowList := p.Allowed[kind]; !isAllowList && len(p.Denied[kind]) == 0 {
			continue
		}
		switch section := t[kind].(type) {
		case nil:
		case map[string]any:
			for _, key := range sortedKeys(section) {
				if err := p.checkID(kind, key); err != nil {
					errs = append(errs, fmt.Errorf("%s::%s: %w", kind, key, err))
				}
			}
		default:
			errs = append(errs, fmt.Errorf("%s: not a map written out in place, and the local policy restricts %s", kind, kind))
		}
	}
	return errs
}

func (p Policy) checkID(kind, key string) error {
	id, err := parseID(key)
	if err != nil {
		return fmt.Errorf("the local policy restricts %s: %w", kind, err)
	}
	for _, entry := range p.Denied[kind] {
		if p.matches(kind, entry, id) {
			return fmt.Errorf("denied by the local policy (remote_config::components_denied::%s: %s)", kind, entry)
		}
	}
	allowed, isAllowList := p.Allowed[kind]
	if isAllowList && !slices.ContainsFunc(allowed, func(entry string) bool { return p.matches(kind, entry, id) }) {
		return fmt.Errorf("not allowed by the local policy (remote_config::components_allowed::%s)", kind)
	}
	return nil
}

// matches reports whether an entry, a type or a full id, means id. A malformed entry means nothing; Validate reports it.
func (p Policy) matches(kind, entry string, id component.ID) bool {
	e, err := parseID(entry)
	if err != nil {
		return false
	}
	a, b := e.Type().String(), id.Type().String()
	if a != b && (p.Aliases == nil || !slices.Contains(p.Aliases(kind, a), b) && !slices.Contains(p.Aliases(kind, b), a)) {
		return false
	}
	return e.Name() == "" || e.Name() == id.Name()
}

// parseID reads an id that is written as the Collector would write it: no spaces, no references.
func parseID(text string) (component.ID, error) {
	var id component.ID
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return id, fmt.Errorf("malformed id %.100q: %w", text, err)
	}
	if id.String() != text {
		return id, fmt.Errorf("malformed id %.100q: spaces", text)
	}
	return id, nil
}
