package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/server/store"
)

func TestCheckTexts(t *testing.T) {
	t.Parallel()
	type node struct {
		Text  string
		At    time.Time
		Bytes []byte
		Next  *node
		Map   map[string]any
	}
	const bad = "\xff"
	for name, v := range map[string]any{
		"a text": bad, "a field": node{Text: bad}, "behind a pointer": &node{Next: &node{Text: bad}}, "a key": map[string]any{bad: 1},
		"a value": node{Map: map[string]any{"k": []string{"", bad}}},
	} {
		require.ErrorIs(t, store.CheckTexts("good", v), store.ErrInvalid, name)
	}
	for name, v := range map[string]any{
		"nothing": nil, "bytes": node{Bytes: []byte(bad)}, "a time in a zone with such a name": node{Text: "\u00e9", At: time.Now().In(time.FixedZone(bad, 0))},
		"a time in the local zone": node{At: time.Now()},
	} {
		require.NoError(t, store.CheckTexts(v), name)
	}
}
