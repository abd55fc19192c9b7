package plan

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ data, err string }{
		"complete":       {`{"id": "1", "files": {"": "a: b", "x": ""}, "later": 1}`, ""},
		"no files":       {`{"id": "1", "files": {}}`, ""},
		"without files":  {`{"id": "1"}`, "has no files"},
		"without id":     {`{"files": {}}`, "id must have"},
		"long id":        {`{"id": "` + strings.Repeat("x", 129) + `", "files": {}}`, "id must have"},
		"not JSON":       {`receivers: {}`, "not JSON"},
		"another type":   {`{"id": 1, "files": {}}`, "not JSON"},
		"files a list":   {`{"id": "1", "files": []}`, "not JSON"},
		"empty":          {``, "not JSON"},
		"above the size": {`{"id": "1", "files": {"": "` + strings.Repeat("x", MaxMessage) + `"}}`, "the limit is 8388608"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRequest([]byte(c.data))
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.err)
		})
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	same := Compare("1", "a: 1\n", "a: 1\n")
	require.Equal(t, Answer{ID: "1", Outcome: Accepted, Effective: "a: 1\n"}, same)

	differs := Compare("1", "a: 1\nb: 2\n", "a: 1\nb: 3\n")
	require.Equal(t, "--- running\n+++ candidate\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n", differs.Diff)

	long := Compare("1", "a", strings.Repeat("x\n", maxText))
	require.True(t, long.Truncated)
	require.Empty(t, long.Effective)
	require.Empty(t, long.Diff)
}

// Whatever comes in, there is an answer that can be sent; its diff is empty only if nothing differs.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id": "1", "files": {"": "a: 1\n"}}`), "a: 1\n", "a: 2\n")
	f.Add([]byte(`{"id": "1", "files": {"": "a"}}`), "no newline", "no newline\n")
	f.Add([]byte(`{"id": "`), "", "x")
	f.Fuzz(func(t *testing.T, data []byte, running, candidate string) {
		r, err := ParseRequest(data)
		if err == nil {
			require.NotEmpty(t, r.ID)
			require.NotNil(t, r.Files)
		}
		a := Compare(r.ID, running, candidate)
		require.Equal(t, running == candidate, a.Diff == "" && !a.Truncated)
		encoded, err := a.Encode()
		require.NoError(t, err)
		require.True(t, json.Valid(encoded))
	})
}
