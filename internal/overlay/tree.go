package overlay

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/confmap"
)

// MaxDepth is how many maps and lists may be nested, the parts of a key such as a::b counted.
const MaxDepth = 100

var errTooDeep = fmt.Errorf("nested more than %d deep", MaxDepth)

// tree returns a deep copy of m in the form in which the Collector reads it: keys with "::" are split into nested maps
// and every key is a string. The Collector splits them too, so whoever looks for a key without that can be led past it.
// A key that is set twice that way is an error: which one the Collector takes is left to chance.
func tree(m map[string]any) (map[string]any, error) {
	return copyMap(m, 0)
}

func copyMap(m map[string]any, depth int) (map[string]any, error) {
	if depth > MaxDepth {
		return nil, errTooDeep
	}
	out := make(map[string]any, len(m))
	for _, key := range sortedKeys(m) {
		parts := strings.SplitN(key, confmap.KeyDelimiter, MaxDepth+1)
		value, err := copyValue(m[key], depth+len(parts), true)
		if err != nil {
			return nil, fmt.Errorf("%.100s: %w", key, err)
		}
		if sub, isMap := value.(map[string]any); isMap && len(sub) > 0 && strings.HasSuffix(key, ":") {
			return nil, fmt.Errorf("%.100s: a key that ends in a colon; the Collector would take that for a part of the next key", key)
		}
		for _, part := range slices.Backward(parts[1:]) {
			value = map[string]any{part: value}
		}
		if err := put(out, parts[0], value); err != nil {
			return nil, fmt.Errorf("%.100s: %w", key, err)
		}
	}
	return out, nil
}

// copyValue copies a value at a depth. Maps inside lists keep their keys: the Collector does not split those.
func copyValue(value any, depth int, split bool) (any, error) {
	if depth > MaxDepth {
		return nil, errTooDeep
	}
	switch v := value.(type) {
	case map[string]any:
		if split {
			return copyMap(v, depth)
		}
		out := make(map[string]any, len(v))
		for key, element := range v {
			c, err := copyValue(element, depth+1, false)
			if err != nil {
				return nil, err
			}
			out[key] = c
		}
		return out, nil
	case map[any]any:
		named := make(map[string]any, len(v))
		for key, element := range v {
			name := fmt.Sprint(key)
			if _, there := named[name]; there {
				return nil, fmt.Errorf("%.100s: set twice", name)
			}
			named[name] = element
		}
		return copyValue(named, depth, split)
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			c, err := copyValue(element, depth+1, false)
			if err != nil {
				return nil, err
			}
			out[i] = c
		}
		return out, nil
	}
	return value, nil
}

// put sets a key that may be there already as a map, when both values are maps without a key in common.
func put(out map[string]any, key string, value any) error {
	old, there := out[key]
	if !there {
		out[key] = value
		return nil
	}
	oldMap, oldIs := old.(map[string]any)
	newMap, newIs := value.(map[string]any)
	if !oldIs || !newIs {
		return errors.New("set twice")
	}
	for k, v := range newMap {
		if err := put(oldMap, k, v); err != nil {
			return err
		}
	}
	return nil
}

// mergeInto merges src over dst as the Collector merges its configuration files: maps deeply, anything else, null
// included, replaces what was there. dst keeps references to src.
func mergeInto(dst, src map[string]any) {
	for key, value := range src {
		over, isMap := value.(map[string]any)
		under, wasMap := dst[key].(map[string]any)
		if isMap && wasMap {
			mergeInto(under, over)
			continue
		}
		dst[key] = value
	}
}
