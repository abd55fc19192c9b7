package client

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatchConnectsAgainWhereItStopped(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		if connections.Add(1) == 1 {
			answer(t, w, ": hello\n\nevent: agent\ndata: {\"key\": \"u\", \"revision\": 4}\nid: 4\n\nevent: agent\ndata: junk\n\ndata: {}\n\n")
			return
		}
		answer(t, w, fmt.Sprintf("event: rollout\ndata: {\"key\": %q, \"deleted\": true}\n\n", "after "+r.Header.Get("Last-Event-ID")))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []Change
	err := c.Watch(ctx, func(change Change) {
		got = append(got, change)
		if change.Kind == "rollout" {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []Change{{}, {Kind: "agent", Key: "u", Revision: 4}, {}, {Kind: "rollout", Key: "after 4", Deleted: true}}, got)
}

func TestWatchEndsWhereThereIsNoStream(t *testing.T) {
	t.Parallel()
	none := newClient(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	require.True(t, IsStatus(none.Watch(t.Context(), nil), http.StatusNotFound))
	page := newClient(t, func(w http.ResponseWriter, _ *http.Request) { answer(t, w, "<html>") })
	require.ErrorIs(t, page.Watch(t.Context(), nil), ErrAnswer)
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWatchWaitsLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		var at []time.Duration
		c := &Client{base: DefaultServer, http: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
			at = append(at, time.Since(start))
			return nil, http.ErrServerClosed
		})}}
		require.ErrorIs(t, c.Watch(ctx, nil), context.DeadlineExceeded)
		require.Equal(t, []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 25 * time.Second}, at)
	})
}
