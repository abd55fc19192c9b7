package fleet

import (
	"slices"
	"strings"
)

// Selector chooses agents by their attributes, in the syntax of Kubernetes label selectors. The zero value chooses all.
//
//	a=b  a==b       a is there and is b
//	a!=b            a is absent or not b
//	a in (x, y)     a is there and one of them
//	a notin (x, y)  a is absent or none of them
//	a  !a           a is there; a is absent
//
// A comma means and. Keys are anything without space, quotes and the characters ,=!(). Values are free text up to the next
// comma, or in double quotes with \" and \\, which values need that have a comma, a quote, a parenthesis, or space at an end.
type Selector struct{ requirements []requirement }

type operator int

const (
	opEquals operator = iota
	opNotEquals
	opIn
	opNotIn
	opExists
	opAbsent
)

// requirement is one term. The values of sets are sorted and distinct.
type requirement struct {
	key    string
	op     operator
	values []string
}

// Matches says whether all terms hold.
func (s Selector) Matches(attributes map[string]string) bool {
	for i := range s.requirements {
		if !s.requirements[i].holds(attributes) {
			return false
		}
	}
	return true
}

// IsEmpty says whether the selector chooses all agents.
func (s Selector) IsEmpty() bool { return len(s.requirements) == 0 }

func (r *requirement) holds(attributes map[string]string) bool {
	value, there := attributes[r.key]
	switch r.op {
	case opExists:
		return there
	case opAbsent:
		return !there
	case opEquals, opIn:
		return there && slices.Contains(r.values, value)
	default:
		return !there || !slices.Contains(r.values, value)
	}
}

// String is the selector in one form of several: ParseSelector of it chooses the same agents and has the same String.
func (s Selector) String() string {
	var b strings.Builder
	for i, r := range s.requirements {
		if i > 0 {
			b.WriteByte(',')
		}
		switch r.op {
		case opExists:
			b.WriteString(r.key)
		case opAbsent:
			b.WriteString("!" + r.key)
		case opEquals:
			b.WriteString(r.key + "=" + quoteValue(r.values[0]))
		case opNotEquals:
			b.WriteString(r.key + "!=" + quoteValue(r.values[0]))
		default:
			b.WriteString(r.key + map[operator]string{opIn: " in (", opNotIn: " notin ("}[r.op])
			for j, v := range r.values {
				if j > 0 {
					b.WriteByte(',')
				}
				b.WriteString(quoteValue(v))
			}
			b.WriteByte(')')
		}
	}
	return b.String()
}

// MarshalText makes the selector its String in JSON.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is ParseSelector.
func (s *Selector) UnmarshalText(text []byte) error {
	parsed, err := ParseSelector(string(text))
	*s = parsed
	return err
}

func quoteValue(value string) string {
	plain := value != ""
	for i := 0; plain && i < len(value); i++ {
		c := value[i]
		plain = c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("._-/:@+", c) >= 0
	}
	if plain {
		return value
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}
