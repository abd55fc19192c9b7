package sqlite

import (
	"strings"

	"github.com/collie-otel/collie/internal/fleet"
)

// sharing makes equal texts of entries share memory while they are read. What is not equal costs nothing beyond its bytes.
type sharing struct {
	texts map[string]string
	keys  map[string]*keys // by the keys, each ended
}

// endOfText is a byte that no text has.
const endOfText = '\xff'

// learn makes what is read next share with the entry.
func (s *sharing) learn(e *entry) {
	s.texts[e.uid], s.texts[string(e.state)] = e.uid, string(e.state)
	var all []byte
	for i, key := range *e.keys {
		s.texts[e.values[i]] = e.values[i]
		all = append(append(all, key...), endOfText)
	}
	if _, known := s.keys[string(all)]; !known {
		s.keys[string(all)] = e.keys
	}
}

func (s *sharing) entry(r *indexRow) (*entry, error) {
	pairs, err := readAttributes(r.attributes.String)
	if err != nil {
		return nil, err
	}
	e := &entry{uid: s.text(r.uid), state: fleet.State(s.text(r.state.String)), values: make([]string, len(pairs)/2)}
	all := make([]byte, 0, 512)
	for i := range e.values {
		e.values[i] = s.text(pairs[2*i+1])
		all = append(append(all, pairs[2*i]...), endOfText)
	}
	if e.keys = s.keys[string(all)]; e.keys == nil {
		e.keys = new(keys)
		for i := range e.values {
			*e.keys = append(*e.keys, s.text(pairs[2*i]))
		}
		s.keys[string(all)] = e.keys
	}
	return e, nil
}

func (s *sharing) text(t string) string {
	shared, known := s.texts[t]
	if !known {
		shared = strings.Clone(t) // t is a part of a row
		s.texts[shared] = shared
	}
	return shared
}
