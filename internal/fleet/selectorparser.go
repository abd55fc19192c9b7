package fleet

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxSelector     = 4096
	maxRequirements = 64
)

// SelectorError says what is wrong with a selector, and where.
type SelectorError struct {
	Text string
	// Offset is in bytes from the beginning of Text.
	Offset  int
	Message string
}

// Error shows the position as a count of characters from 1, and what stands there.
func (e *SelectorError) Error() string {
	rest := e.Text[e.Offset:]
	if len(rest) > 20 {
		rest = strings.ToValidUTF8(rest[:20], "") + "..."
	}
	at := utf8.RuneCountInString(e.Text[:e.Offset]) + 1
	if rest == "" {
		return fmt.Sprintf("selector: %s at its end (character %d)", e.Message, at)
	}
	return fmt.Sprintf("selector: %s at character %d, before %q", e.Message, at, rest)
}

// ParseSelector reads a selector. Errors are *SelectorError. Text of nothing but space chooses all agents.
func ParseSelector(text string) (Selector, error) {
	p := selectorParser{text: text}
	var s Selector
	if err := p.limits(); err != nil {
		return Selector{}, err
	}
	if p.space(); p.at == len(text) {
		return s, nil
	}
	for {
		r, err := p.requirement()
		if err != nil {
			return Selector{}, err
		}
		s.requirements = append(s.requirements, r)
		if p.space(); p.at == len(text) {
			return s, p.written(s)
		}
		if !p.take(",") {
			return Selector{}, p.fail("expected a comma")
		}
		if len(s.requirements) == maxRequirements {
			return Selector{}, p.fail(fmt.Sprintf("more than %d terms", maxRequirements))
		}
	}
}

// selectorParser reads text from the byte at on.
type selectorParser struct {
	text string
	at   int
}

func (p *selectorParser) limits() error {
	if len(p.text) > maxSelector {
		return &SelectorError{Text: p.text, Offset: maxSelector, Message: fmt.Sprintf("longer than %d bytes", maxSelector)}
	}
	for i, r := range p.text {
		if r == utf8.RuneError && !strings.HasPrefix(p.text[i:], "\uFFFD") {
			return &SelectorError{Text: p.text, Offset: i, Message: "invalid UTF-8"}
		}
	}
	return nil
}

// written refuses a selector whose String, with its escapes, would be longer than what can be read again.
func (p *selectorParser) written(s Selector) error {
	if len(s.String()) > maxSelector {
		return p.fail(fmt.Sprintf("longer than %d bytes when its values are quoted", maxSelector))
	}
	return nil
}

func (p *selectorParser) fail(message string) error {
	return &SelectorError{Text: p.text, Offset: p.at, Message: message}
}

func (p *selectorParser) space() {
	p.at = len(p.text) - len(strings.TrimLeftFunc(p.text[p.at:], unicode.IsSpace))
}

func (p *selectorParser) take(token string) bool {
	if !strings.HasPrefix(p.text[p.at:], token) {
		return false
	}
	p.at += len(token)
	return true
}

// word is a run of the characters that a key can have.
func (p *selectorParser) word() string {
	rest := p.text[p.at:]
	end := strings.IndexFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`,=!()"'`, r) })
	if end < 0 {
		end = len(rest)
	}
	p.at += end
	return rest[:end]
}

func (p *selectorParser) requirement() (requirement, error) {
	p.space()
	absent := p.take("!")
	p.space()
	r := requirement{key: p.word(), op: opExists}
	if r.key == "" {
		return r, p.fail("expected the key of an attribute")
	}
	if absent {
		r.op = opAbsent
		return r, nil
	}
	p.space()
	switch {
	case p.take("=="), p.take("="):
		r.op = opEquals
	case p.take("!="):
		r.op = opNotEquals
	case p.at == len(p.text), p.text[p.at] == ',':
		return r, nil
	default:
		return r, p.set(&r)
	}
	value, err := p.value(",")
	r.values = []string{value}
	return r, err
}

// set reads `in (...)` or `notin (...)`.
func (p *selectorParser) set(r *requirement) error {
	start := p.at
	switch p.word() {
	case "in":
		r.op = opIn
	case "notin":
		r.op = opNotIn
	default:
		p.at = start
		return p.fail("expected one of =, ==, !=, in, notin, or a comma")
	}
	if p.space(); !p.take("(") {
		return p.fail("expected a parenthesis with values")
	}
	for {
		p.space()
		if p.at == len(p.text) || strings.IndexByte(",)", p.text[p.at]) >= 0 {
			return p.fail("expected a value")
		}
		value, err := p.value(",)")
		if err != nil {
			return err
		}
		r.values = append(r.values, value)
		p.space()
		if p.take(")") {
			break
		}
		if !p.take(",") {
			return p.fail("expected a comma or a closing parenthesis")
		}
	}
	slices.Sort(r.values)
	r.values = slices.Compact(r.values)
	return nil
}

// value reads a value in quotes, or free text up to one of the characters in until.
func (p *selectorParser) value(until string) (string, error) {
	if p.space(); p.take(`"`) {
		return p.quoted()
	}
	rest := p.text[p.at:]
	end := strings.IndexAny(rest, until)
	if end < 0 {
		end = len(rest)
	}
	value := strings.TrimRightFunc(rest[:end], unicode.IsSpace)
	if i := strings.IndexAny(value, `"()`); i >= 0 {
		p.at += i
		return "", p.fail("a value with quotes or parentheses must stand in double quotes")
	}
	p.at += end
	return value, nil
}

func (p *selectorParser) quoted() (string, error) {
	var b strings.Builder
	start := p.at - 1
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch {
		case c == '"':
			return b.String(), nil
		case c == '\\' && p.at < len(p.text) && strings.IndexByte(`"\`, p.text[p.at]) >= 0:
			c = p.text[p.at]
			p.at++
		case c == '\\':
			p.at--
			return "", p.fail(`expected \" or \\`)
		}
		b.WriteByte(c)
	}
	p.at = start
	return "", p.fail("the quotes are not closed")
}
