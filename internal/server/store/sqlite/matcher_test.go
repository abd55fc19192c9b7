package sqlite

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// TestMatcher compares what a query finds with what its parts say of each agent's attributes.
func TestMatcher(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	all := map[string]map[string]string{}
	var rows []indexRow
	for n := range 300 {
		attributes := map[string]string{}
		for range random.IntN(5) {
			attributes[[]string{"a", "ab", "b.c", "É"}[random.IntN(4)]] = []string{"", "x", "X y", "a", "é", "\u212a"}[random.IntN(6)]
		}
		uid := fmt.Sprintf("%03d", n)
		all[uid] = attributes
		row := indexRow{uid: uid}
		row.attributes.String, row.attributes.Valid = string(appendAttributes(nil, attributes)), true
		rows = append(rows, row)
	}
	var x agentIndex
	require.NoError(t, x.merge(rows))
	for _, text := range []string{"", "x", "X Y", "É", "é", "k", "b.c", "12", "\xff"} {
		for _, terms := range []string{"", "a=x", "ab", "!ab", "a!=x,b.c", `b.c in (x,"X y"),a notin (a)`, "É=é", "none", "!none"} {
			selector, err := fleet.ParseSelector(terms)
			require.NoError(t, err)
			want := 0
			for uid, attributes := range all {
				if selector.Matches(attributes) && contains(uid, attributes, text) {
					want++
				}
			}
			_, _, got := find(x.entries, store.AgentQuery{Selector: selector, Text: text}, nil)
			require.Equal(t, want, got, "%q and %q", terms, text)
		}
	}
}

func contains(uid string, attributes map[string]string, text string) bool {
	lower := strings.ToValidUTF8(strings.ToLower(text), "\ufffd")
	texts := slices.Concat([]string{uid}, slices.Collect(maps.Keys(attributes)), slices.Collect(maps.Values(attributes)))
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), lower) })
}

func FuzzContainsFold(f *testing.F) {
	for _, s := range []string{"", "abc", "ABC é", "\u0130x", "\u212aelvin", "aÉb"} {
		for _, part := range []string{"", "b", "C É", "i", "k", "éb", "bc"} {
			f.Add(s, part)
		}
	}
	f.Fuzz(func(t *testing.T, s, part string) {
		if !utf8.ValidString(s) || !utf8.ValidString(part) {
			return
		}
		lower := strings.ToLower(part)
		require.Equal(t, strings.Contains(strings.ToLower(s), lower), containsFold(s, lower))
	})
}

// TestSharing: entries that come one by one, in whatever order, have equal texts once.
func TestSharing(t *testing.T) {
	t.Parallel()
	var x agentIndex
	for _, uid := range []string{"3", "4", "1", "2", "3"} {
		row := indexRow{uid: uid}
		row.state.String, row.attributes.String, row.attributes.Valid = strings.Clone("healthy"), `{"a":"b","c":"long"}`, true
		require.NoError(t, x.merge([]indexRow{row}))
	}
	require.Len(t, x.entries, 4)
	first := x.entries[0]
	for _, e := range x.entries {
		require.Same(t, first.keys, e.keys)
		require.Same(t, unsafe.StringData(first.values[1]), unsafe.StringData(e.values[1]))
		require.Same(t, unsafe.StringData(string(first.state)), unsafe.StringData(string(e.state)))
	}
}
