package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCheckTexts(t *testing.T) {
	t.Parallel()
	type thing struct {
		Time time.Time
		Map  map[string][]*string
	}
	bad := "\xff"
	require.NoError(t, CheckTexts(thing{}, []byte(bad), "\x00"))
	require.NoError(t, CheckTexts(thing{Time: time.Now().In(time.FixedZone(bad, 0))}), "a zone is not stored")
	require.ErrorIs(t, CheckTexts(thing{Map: map[string][]*string{"a": {nil, &bad}}}), ErrInvalid)
	require.ErrorIs(t, CheckTexts(map[string]int{bad: 1}), ErrInvalid)
}
