package storetest

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func testDocuments(t *testing.T, s store.Store) {
	before, began := revision(t, s), time.Now()
	all, err := s.Documents(t.Context(), "filter")
	require.NoError(t, err)
	require.Empty(t, all)
	require.ErrorIs(t, s.DeleteDocument(t.Context(), "filter", "b"), store.ErrNotFound)

	event := fleet.Event{Kind: fleet.AgentOffered, Time: Start, Actor: "anna"}
	require.NoError(t, s.PutDocument(t.Context(), "filter", "b", []byte("old"), event))
	require.NoError(t, s.PutDocument(t.Context(), "filter", "b", []byte("a: \xff\x00")))
	require.NoError(t, s.PutDocument(t.Context(), "filter", "a\x00' OR 1=1 --", nil))
	require.NoError(t, s.PutDocument(t.Context(), "layout", "b", []byte("another kind")))
	all, err = s.Documents(t.Context(), "filter")
	require.NoError(t, err)
	require.Len(t, all, 2)
	for i, want := range []store.Document{{Name: "a\x00' OR 1=1 --", Data: []byte{}}, {Name: "b", Data: []byte("a: \xff\x00")}} {
		require.WithinRange(t, all[i].UpdatedAt, began.Add(-time.Second), time.Now().Add(time.Second))
		want.Kind, want.UpdatedAt = "filter", all[i].UpdatedAt
		require.Equal(t, want, all[i])
	}

	require.NoError(t, s.DeleteDocument(t.Context(), "filter", "b", event))
	all, err = s.Documents(t.Context(), "filter")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.ErrorIs(t, s.DeleteDocument(t.Context(), "filter", "b", event), store.ErrNotFound)
	require.Len(t, events(t, s, store.EventQuery{}), 2, "what failed tells nothing")
	require.Equal(t, before, revision(t, s), "no change of the fleet")
}

func testDocumentLimits(t *testing.T, s store.Store) {
	most := []byte(strings.Repeat("x", store.MaxDocument))
	require.NoError(t, s.PutDocument(t.Context(), "k", "most", most))
	for name, err := range map[string]error{
		"too long":      s.PutDocument(t.Context(), "k", "n", append(most, 'x')),
		"no kind":       s.PutDocument(t.Context(), "", "n", nil),
		"no name":       s.PutDocument(t.Context(), "k", "", nil),
		"invalid UTF-8": s.PutDocument(t.Context(), "k", "\xff", nil),
	} {
		require.ErrorIs(t, err, store.ErrInvalid, name)
	}
	all, err := s.Documents(t.Context(), "k")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, most, all[0].Data)
}
