package sqlite

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// Attributes are most of an agent's document, and maps are what encoding/json is slowest with: their part of the document is
// written and read here, in the same form, and everything else is left to encoding/json.

const (
	beforeUID            = `{"uid":"`
	afterUID             = len(beforeUID) + 36 + len(`"`)
	beforeIdentifying    = `,"identifying":`
	beforeNonIdentifying = `,"non_identifying":`
)

// encodeAgent returns the text that json.Marshal makes of the agent, whose UID is valid, and that of its Attributes.
func encodeAgent(a *fleet.Agent) (document, attributes []byte, err error) {
	rest := *a
	rest.Identifying, rest.NonIdentifying = nil, nil
	text, err := json.Marshal(&rest)
	if err != nil {
		return nil, nil, err
	}
	document = append(make([]byte, 0, 2*len(text)), text[:afterUID]...)
	if len(a.Identifying) > 0 {
		document = appendAttributes(append(document, beforeIdentifying...), a.Identifying)
	}
	if len(a.NonIdentifying) > 0 {
		document = appendAttributes(append(document, beforeNonIdentifying...), a.NonIdentifying)
	}
	if document = append(document, text[afterUID:]...); hasReplacement(document) {
		err = store.CheckTexts(a)
	}
	return document, appendAttributes(make([]byte, 0, len(document)-len(text)), a.Identifying, a.NonIdentifying), err
}

// appendAttributes appends the maps as one JSON object in the order of the keys. A key of both has the value of the first.
func appendAttributes(to []byte, attributes ...map[string]string) []byte {
	keys := make([]string, 0, 32)
	for _, m := range attributes {
		keys = slices.AppendSeq(keys, maps.Keys(m))
	}
	slices.Sort(keys)
	to = append(to, '{')
	for i, key := range slices.Compact(keys) {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(appendText(to, key), ':')
		for _, m := range attributes {
			if value, found := m[key]; found {
				to = appendText(to, value)
				break
			}
		}
	}
	return append(to, '}')
}

func appendText(to []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(text) // of a string it has no error
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), text...), '"')
}

// decodeAgent is json.Unmarshal of a document.
func decodeAgent(text string) (a fleet.Agent, err error) {
	if len(text) <= afterUID || !strings.HasPrefix(text, beforeUID) || strings.IndexByte(text[:afterUID], '\\') >= 0 {
		return a, json.Unmarshal([]byte(text), &a)
	}
	identifying, rest, _ := cutAttributes(text[afterUID:], beforeIdentifying)
	nonIdentifying, rest, _ := cutAttributes(rest, beforeNonIdentifying)
	document := append(make([]byte, 0, afterUID+len(rest)), text[:afterUID]...)
	err = json.Unmarshal(append(document, rest...), &a)
	if identifying != nil {
		a.Identifying = identifying
	}
	if nonIdentifying != nil {
		a.NonIdentifying = nonIdentifying
	}
	return a, err
}

// cutAttributes takes a prefix and the object after it off the text. It leaves an object that it cannot read, such as one with
// an escape, to encoding/json.
func cutAttributes(text, prefix string) (attributes map[string]string, rest string, found bool) {
	object, found := strings.CutPrefix(text, prefix)
	if !found {
		return nil, text, false
	}
	pairs, rest, found := cutPairs(object)
	if !found {
		return nil, text, false
	}
	attributes = make(map[string]string, len(pairs)/2)
	texts := strings.Join(pairs, "") // the pairs themselves would keep the whole document in memory
	for i := 0; i < len(pairs); i += 2 {
		key := len(pairs[i])
		end := key + len(pairs[i+1])
		attributes[texts[:key]] = texts[key:end]
		texts = texts[end:]
	}
	return attributes, rest, true
}

// readAttributes reads an object of texts: keys and values in turn, in the order of the keys.
func readAttributes(text string) ([]string, error) {
	if pairs, rest, found := cutPairs(text); found && rest == "" {
		return pairs, nil
	}
	var attributes map[string]string
	if err := json.Unmarshal([]byte(text), &attributes); err != nil {
		return nil, err
	}
	pairs := make([]string, 0, 2*len(attributes))
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		pairs = append(pairs, key, attributes[key])
	}
	return pairs, nil
}

// cutPairs takes an object of texts, as appendAttributes writes it, off the text: keys and values in turn. It is not found if a
// text has an escape.
func cutPairs(text string) (pairs []string, rest string, found bool) {
	rest, found = strings.CutPrefix(text, "{")
	if after, empty := strings.CutPrefix(rest, "}"); empty {
		return nil, after, found
	}
	pairs = make([]string, 0, 32)
	for ends := byte(':'); found; {
		end := -1
		if len(rest) > 0 && rest[0] == '"' {
			end = strings.IndexByte(rest[1:], '"') + 1
		}
		if end <= 0 || len(rest) < end+2 || strings.IndexByte(rest[:end], '\\') >= 0 {
			return nil, text, false
		}
		pairs = append(pairs, rest[1:end])
		next := rest[end+1]
		rest = rest[end+2:]
		switch {
		case next == ends && ends == ':':
			ends = ','
		case next == ends:
			ends = ':'
		case next == '}' && ends == ',':
			return pairs, rest, true
		default:
			return nil, text, false
		}
	}
	return nil, text, false
}
