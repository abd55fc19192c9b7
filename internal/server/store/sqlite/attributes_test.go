package sqlite

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/storetest"
)

// FuzzAgentDocument: an agent's document is what encoding/json makes of it, and is read as encoding/json reads it.
func FuzzAgentDocument(f *testing.F) {
	for _, text := range []string{"", "a", `"`, `\`, `\ufffd`, "\ufffd", "a\x00<&>\u2028é", `{"a":"b"}`, "\x7f", "\xff"} {
		f.Add(text, "host.name", true)
		f.Add("service.name", text, false)
	}
	f.Fuzz(func(t *testing.T, one, two string, both bool) {
		a := storetest.NewAgent(1)
		a.Identifying, a.NonIdentifying = map[string]string{one: two, "x": one}, nil
		if both {
			a.NonIdentifying = map[string]string{two: one, "x": "y", one: ""}
		}
		document, attributes, err := encodeAgent(&a)
		if want := store.CheckTexts(a); want != nil {
			require.ErrorIs(t, err, store.ErrInvalid)
			return
		}
		require.NoError(t, err)
		requireJSON(t, a, document)
		requireJSON(t, a.Attributes(), attributes)
		got, err := decodeAgent(string(document))
		require.NoError(t, err)
		require.Equal(t, a, got)
		pairs, err := readAttributes(string(attributes))
		require.NoError(t, err)
		require.Len(t, pairs, 2*len(a.Attributes()))
		for i := 0; i < len(pairs); i += 2 {
			require.Equal(t, a.Attributes()[pairs[i]], pairs[i+1])
			require.True(t, i == 0 || pairs[i-2] < pairs[i], "in the order of the keys")
		}
	})
}

func requireJSON(t *testing.T, value any, got []byte) {
	t.Helper()
	want, err := json.Marshal(value)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// FuzzDecodeAgent: attributes in any form are read as encoding/json reads them.
func FuzzDecodeAgent(f *testing.F) {
	objects := []string{`{}`, `null`, `{"a":"b"}`, `{"a":"\u0041","b":"c"}`, ` { "a" : "b" } `, `{"b":"c","a":"d","b":"e"}`, `{"a":1}`, `["a"]`, `{"é":""}`}
	for i, object := range objects {
		f.Add(object, objects[len(objects)-1-i])
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		if !json.Valid([]byte(one)) || !json.Valid([]byte(two)) || store.CheckTexts(one, two) != nil {
			return
		}
		text := beforeUID + storetest.UID(1) + `"` + beforeIdentifying + one + beforeNonIdentifying + two + `,"connected":true}`
		var want fleet.Agent
		wrong := json.Unmarshal([]byte(text), &want)
		got, err := decodeAgent(text)
		if wrong != nil {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}
