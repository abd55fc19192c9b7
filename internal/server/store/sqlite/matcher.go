package sqlite

import (
	"strings"
	"unicode/utf8"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// matcher holds entries against one query. It remembers what is the same from one entry to the next, and allocates nothing for
// an entry.
type matcher struct {
	state      fleet.State
	selector   fleet.Selector
	everything bool   // the selector chooses all
	named      string // the selector's text
	text       string // in lower case
	byKeys     map[*keys]*keysMatch
}

// keysMatch is what a query makes of entries with the same keys, the last of which had these values.
type keysMatch struct {
	named      []int             // which of the keys the selector may ask for
	attributes map[string]string // of them
	selected   bool

	text    bool // a key contains the text
	values  []string
	matches []bool // by value in values: it contains the text
}

func newMatcher(q store.AgentQuery) *matcher {
	return &matcher{
		state: q.State, selector: q.Selector, everything: q.Selector.IsEmpty(), named: q.Selector.String(),
		text: strings.ToValidUTF8(strings.ToLower(q.Text), "\uFFFD"), byKeys: map[*keys]*keysMatch{},
	}
}

func (m *matcher) matches(e *entry) bool {
	if m.state != "" && m.state != e.state {
		return false
	}
	if m.everything && m.text == "" {
		return true
	}
	k := m.byKeys[e.keys]
	if k == nil {
		k = m.match(*e.keys)
		m.byKeys[e.keys] = k
	}
	return (m.everything || m.selects(e, k)) && (m.text == "" || m.finds(e, k))
}

// match takes for named what the text of the selector contains: it has each of its keys as it is, and more does no harm.
func (m *matcher) match(all keys) *keysMatch {
	k := &keysMatch{attributes: map[string]string{}, values: make([]string, len(all)), matches: make([]bool, len(all))}
	for i, key := range all {
		if strings.Contains(m.named, key) {
			k.named = append(k.named, i)
			k.attributes[key] = ""
		}
		k.text = k.text || containsFold(key, m.text)
	}
	k.selected = m.selector.Matches(k.attributes)
	return k
}

func (m *matcher) selects(e *entry, k *keysMatch) bool {
	changed := false
	for _, i := range k.named {
		if key := (*e.keys)[i]; k.attributes[key] != e.values[i] {
			k.attributes[key], changed = e.values[i], true
		}
	}
	if changed {
		k.selected = m.selector.Matches(k.attributes)
	}
	return k.selected
}

func (m *matcher) finds(e *entry, k *keysMatch) bool {
	if k.text || containsFold(e.uid, m.text) {
		return true
	}
	for i, value := range e.values {
		if value != k.values[i] {
			k.values[i], k.matches[i] = value, containsFold(value, m.text)
		}
		if k.matches[i] {
			return true
		}
	}
	return false
}

// containsFold says whether s in lower case contains lower, which is in lower case.
func containsFold(s, lower string) bool {
	if lower == "" {
		return true
	}
	first := lower[0]
	for at := range len(s) {
		c := s[at]
		if c >= utf8.RuneSelf {
			return strings.Contains(strings.ToLower(s), lower)
		}
		if lowerASCII(c) == first && hasPrefixFold(s[at:], lower) {
			return true
		}
	}
	return false
}

// hasPrefixFold is of ASCII: what has other letters at this place is found by their lower case.
func hasPrefixFold(s, lower string) bool {
	if len(s) < len(lower) {
		return false
	}
	for i := range len(lower) {
		if lowerASCII(s[i]) != lower[i] {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
