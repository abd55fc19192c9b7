package overlay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWrongBodiesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"not YAML":            {"a: 1\nb: [", "line 2"},
		"a string":            {"hello", "line 1: not a map but string"},
		"a reference":         {"\n${env:X}", "line 2: not a map but string"},
		"a list":              {"- a", "line 1: not a map"},
		"a key twice":         {"a: 1\nb: 2\na: 3", `line 3: key "a" is there twice`},
		"a number twice":      {"x: {1: a, '1': b}", `line 1: key "1" is there twice`},
		"two merge keys":      {"x: {<<: {}, <<: {}}", "line 1: a second merge key"},
		"merge of a scalar":   {"x: {<<: 1}", "line 1: a merge key takes a map"},
		"merge of scalars":    {"x: {<<: [{}, 1]}", "line 1: a merge key takes a map"},
		"a map as a key":      {"x: {? {a: b} : c}", "line 1: a key that is not a scalar"},
		"two documents":       {"a: 1\n---\nb: 2", "line 3: a second YAML document"},
		"two, one empty":      {"a: 1\n---\n---\nb: 2", "line 4: a second YAML document"},
		"not UTF-8":           {"a: \xff", "not valid UTF-8"},
		"an anchor in itself": {"a: &a [*a]", `line 1: anchor "a" contains itself`},
		"merged into itself":  {"a: &a\n  <<: *a", `anchor "a" contains itself`},
		"no such anchor":      {"a: *b", "unknown anchor"},
		"a wrong scalar":      {"a:\n  b: !!int x", "line 2"},
		"too deep":            {"a: " + strings.Repeat("[", 101) + strings.Repeat("]", 101), "line 1: nested more than 100 deep"},
		"too deep a key":      {strings.Repeat("a::", 100) + "a: {}", "nested more than 100 deep"},
		"too deep a list key": {"a: [{x: {'" + strings.Repeat("a::", 150) + "a': {}}}]", "nested more than 100 deep"},
		"too large":           {"a: " + strings.Repeat("x", MaxBytes), "the remote configuration has 4194307 bytes; the limit is 4194304"},
		"too many entries":    {"a: [" + strings.Repeat("a,", MaxSeparators) + "]", "250001 commas, brackets"},
		"too many values":     {"a: [" + strings.Repeat("{a: 1},", 100_000) + "]", "more than 250000 values"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Remote([]File{{Name: "file", Body: []byte(c.body)}})
			require.ErrorContains(t, err, c.want)
			if name != "too large" && name != "too many entries" {
				require.ErrorContains(t, err, `remote configuration "file": `)
			}
		})
	}
}

func TestDepthAndSizeThatAreAllowed(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"depth":     "a: " + strings.Repeat("[", 100) + strings.Repeat("]", 100),
		"key depth": strings.Repeat("a::", 99) + "a: {}",
		"size":      "a: " + strings.Repeat("x", MaxBytes-3),
		"values":    "a: [" + strings.Repeat("a,", MaxValues-10) + "]",
	} {
		_, err := Remote([]File{{Body: []byte(body)}})
		require.NoError(t, err, name)
	}
}

func TestLimitsAreForAllFilesTogether(t *testing.T) {
	t.Parallel()
	half := "[" + strings.Repeat("{a: 1},", 50_000) + "]"
	_, err := Remote(remote("a: "+half, "b: "+half))
	require.ErrorContains(t, err, `remote configuration "b": line 1: more than 250000 values`)
}

// Alias bombs are refused before they are expanded. Not parallel: it counts what the process allocates.
func TestAliasBombs(t *testing.T) {
	t.Parallel()
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := 1; i < 30; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	var merges strings.Builder
	merges.WriteString("a0: &a0 {k: v}\n")
	for i := 1; i < 60; i++ {
		fmt.Fprintf(&merges, "a%d: &a%d {<<: [*a%d, *a%d]}\n", i, i, i-1, i-1)
	}
	for name, body := range map[string]string{
		"billion laughs":  laughs.String(),
		"quadratic text":  "a: &a " + strings.Repeat("x", MaxBytes/2) + "\nb: [" + strings.Repeat("*a,", MaxSeparators-10) + "]",
		"quadratic lists": "a: &a [" + strings.Repeat("x,", 50_000) + "]\nb: [" + strings.Repeat("*a,", 100_000) + "]",
		"merge keys":      merges.String(),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after uint64
			start := time.Now()
			before = allocated()
			_, err := Remote([]File{{Body: []byte(body)}})
			after = allocated()
			require.ErrorContains(t, err, "aliases expanded")
			require.Less(t, time.Since(start), 30*time.Second)
			require.Less(t, after-before, uint64(300<<20))
			t.Logf("%d bytes: %v, %d MiB allocated", len(body), time.Since(start), (after-before)>>20)
		})
	}
}

// Many keys in one map take time in proportion, not to the square.
func TestManyKeys(t *testing.T) {
	t.Parallel()
	var body strings.Builder
	for i := range MaxValues/2 - 10 {
		fmt.Fprintf(&body, "k%d: 0\n", i)
	}
	start := time.Now()
	got, err := Remote([]File{{Body: []byte(body.String())}})
	require.NoError(t, err)
	require.Len(t, got, MaxValues/2-10)
	require.Less(t, time.Since(start), 20*time.Second)
}
