package sqlite

import (
	"database/sql"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMerge compares the index with a map after random changes, some of agents that were never there.
func TestMerge(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var x agentIndex
	want := map[string]string{}
	for range 500 {
		var rows []indexRow
		for _, n := range random.Perm(60)[:random.IntN(6)] {
			row := indexRow{uid: string(rune('A' + n))}
			if random.IntN(3) > 0 {
				row.state = sql.NullString{String: string(rune('a' + random.IntN(26))), Valid: true}
				row.attributes = sql.NullString{String: `{"k":"` + row.state.String + `"}`, Valid: true}
			}
			if delete(want, row.uid); row.attributes.Valid {
				want[row.uid] = row.state.String
			}
			rows = append(rows, row)
		}
		before := slices.Clone(x.entries)
		old := x.entries
		require.NoError(t, x.merge(rows))
		require.Equal(t, before, old, "a list under way keeps what it has")
		uids := slices.Sorted(maps.Keys(want))
		require.Len(t, x.entries, len(uids))
		for i, e := range x.entries {
			require.Equal(t, uids[i], e.uid)
			require.Equal(t, want[e.uid], string(e.state))
			require.Equal(t, []string{want[e.uid]}, e.values)
		}
	}
	require.Error(t, x.merge([]indexRow{{uid: "A", attributes: sql.NullString{String: "no JSON", Valid: true}}}))
}
