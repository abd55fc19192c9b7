package overlay

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"
)

// Limits of one remote configuration, all its files together.
const (
	// MaxBytes is the size of all bodies.
	MaxBytes = 4 << 20
	// MaxValues is how many keys and values there may be, aliases expanded.
	MaxValues = 250_000
	// MaxSeparators is how many commas, opening brackets, list marks and line ends there may be, one of which comes before
	// every entry of a map or list. It is looked at before anything is parsed, and so bounds the parser's memory.
	MaxSeparators = MaxValues
	// MaxText is the length of all keys and values in bytes, aliases expanded.
	MaxText = 2 * MaxBytes
)

// File is one named object of a remote configuration (AgentConfigMap): a name, which may be empty, and YAML.
type File struct {
	Name string
	Body []byte
}

// layer is one decoded file.
type layer struct {
	name string // for errors
	tree map[string]any
}

// Remote decodes the files and merges them in name order, as Merge does: what the server asks for, and nothing else. It is
// what a Policy checks.
func Remote(files []File) (map[string]any, error) {
	layers, err := decodeAll(files)
	if err != nil {
		return nil, err
	}
	m := merger{out: map[string]any{}}
	for _, l := range layers {
		if err := m.add(l); err != nil {
			return nil, err
		}
	}
	m.setExtensions()
	return m.out, nil
}

func decodeAll(files []File) ([]layer, error) {
	if err := checkSize(files); err != nil {
		return nil, err
	}
	files = slices.SortedStableFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	d := decoder{open: map[*yaml.Node]bool{}}
	layers := make([]layer, 0, len(files))
	for _, f := range files {
		name := fmt.Sprintf("remote configuration %q", f.Name)
		decoded, err := d.document(f.Body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		t, err := tree(decoded)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		layers = append(layers, layer{name, t})
	}
	return layers, nil
}

func checkSize(files []File) error {
	size, separators := 0, 0
	for _, f := range files {
		size += len(f.Body)
		for _, b := range f.Body {
			if strings.IndexByte(",?[{\n\r", b) >= 0 {
				separators++
			}
		}
		separators += bytes.Count(f.Body, []byte("- "))
	}
	if size > MaxBytes {
		return fmt.Errorf("the remote configuration has %d bytes; the limit is %d", size, MaxBytes)
	}
	if separators > MaxSeparators {
		return fmt.Errorf("the remote configuration has %d commas, brackets, list marks and line ends; the limit is %d", separators, MaxSeparators)
	}
	return nil
}

// decoder turns YAML nodes into what the Collector's own YAML decoding gives. It does not use that for whole documents,
// since aliases are bounded too loosely there, and its search for duplicate keys takes the square of the number of keys.
type decoder struct {
	values, text int                 // used up so far
	open         map[*yaml.Node]bool // anchored nodes being decoded
}

// document decodes a body. Nothing, only comments or null give an empty map.
func (d *decoder) document(body []byte) (map[string]any, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("not valid UTF-8")
	}
	parser := yaml.NewDecoder(bytes.NewReader(body))
	var root yaml.Node
	switch err := parser.Decode(&root); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	value, err := d.value(&root, 0)
	if err != nil {
		return nil, err
	}
	if err := noMore(parser); err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	}
	return nil, fmt.Errorf("line %d: not a map but %T", root.Content[0].Line, value)
}

// noMore refuses a second document that is not empty; the Collector would ignore it without a word.
func noMore(parser *yaml.Decoder) error {
	for {
		var next yaml.Node
		switch err := parser.Decode(&next); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case next.Content[0].ShortTag() != "!!null":
			return fmt.Errorf("line %d: a second YAML document", next.Content[0].Line)
		}
	}
}

func (d *decoder) value(n *yaml.Node, depth int) (any, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("line %d: %w", n.Line, errTooDeep)
	}
	if err := d.use(n); err != nil {
		return nil, err
	}
	if n.Anchor != "" && n.Kind != yaml.AliasNode {
		if d.open[n] {
			return nil, fmt.Errorf("line %d: anchor %q contains itself", n.Line, n.Anchor)
		}
		d.open[n] = true
		defer delete(d.open, n)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return d.value(n.Content[0], depth)
	case yaml.AliasNode:
		return d.value(n.Alias, depth)
	case yaml.MappingNode:
		return d.mapping(n, depth)
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, element := range n.Content {
			value, err := d.value(element, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	}
	return scalar(n)
}

// use counts a node, each time that it is come to.
func (d *decoder) use(n *yaml.Node) error {
	d.values++
	d.text += len(n.Value)
	if d.values > MaxValues {
		return fmt.Errorf("line %d: more than %d values in all, aliases expanded", n.Line, MaxValues)
	}
	if d.text > MaxText {
		return fmt.Errorf("line %d: more than %d bytes of text in all, aliases expanded", n.Line, MaxText)
	}
	return nil
}

func scalar(n *yaml.Node) (any, error) {
	if n.ShortTag() == "!!str" {
		return n.Value, nil
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	return value, nil
}

// mapping decodes a map; keys of merged maps (<<) do not replace the map's own, nor those of a map merged before.
func (d *decoder) mapping(n *yaml.Node, depth int) (map[string]any, error) {
	out := make(map[string]any, len(n.Content)/2)
	var merge *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
			if merge != nil {
				return nil, fmt.Errorf("line %d: a second merge key", key.Line)
			}
			merge = value
			continue
		}
		name, err := d.key(key, depth)
		if err != nil {
			return nil, err
		}
		if _, there := out[name]; there {
			return nil, fmt.Errorf("line %d: key %.100q is there twice", key.Line, name)
		}
		if out[name], err = d.value(value, depth+1+strings.Count(name, confmap.KeyDelimiter)); err != nil {
			return nil, err
		}
	}
	if merge == nil {
		return out, nil
	}
	return out, d.merge(out, merge, depth)
}

func (d *decoder) key(n *yaml.Node, depth int) (string, error) {
	value, err := d.value(n, depth)
	if err != nil {
		return "", err
	}
	switch value.(type) {
	case map[string]any, []any:
		return "", fmt.Errorf("line %d: a key that is not a scalar", n.Line)
	}
	return fmt.Sprint(value), nil
}

func (d *decoder) merge(out map[string]any, from *yaml.Node, depth int) error {
	sources := []*yaml.Node{from}
	if from.Kind == yaml.SequenceNode {
		sources = from.Content
	}
	for _, source := range sources {
		value, err := d.value(source, depth)
		if err != nil {
			return err
		}
		m, ok := value.(map[string]any)
		if !ok {
			return fmt.Errorf("line %d: a merge key takes a map or a list of maps", source.Line)
		}
		for key, element := range m {
			if _, there := out[key]; !there {
				out[key] = element
			}
		}
	}
	return nil
}
