//go:build unix

package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

// onTerminal runs a command with a character device for its output, which commands take for a terminal.
func onTerminal(ctx context.Context, t *testing.T, line ...string) int {
	t.Helper()
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, device.Close()) }()
	return execute(ctx, streams{out: device, err: device}, line)
}

func TestWatchesOnATerminal(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, answers{
		"GET /rollouts/{id}": inTurn(exampleRollout("running"), exampleRollout("rolled_back")),
		"GET /agents":        apiv1.Agents{Agents: exampleAgents()},
		"GET /events":        announce("rollout"),
		"POST /plans":        apiv1.Plan{ID: "p-1", State: "running"},
		"GET /plans/{id}":    examplePlan(),
	})
	require.Equal(t, exitRefused, onTerminal(t.Context(), t, "rollout", "status", "r-1", "--watch", "--server", server.url))
	require.Equal(t, exitRefused, onTerminal(t.Context(), t, "plan", "--name", "gw", "-f", file(t, "x"), "--server", server.url))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { ended <- onTerminal(ctx, t, "agents", "list", "--watch", "--server", server.url) }()
	require.Eventually(t, func() bool { return len(server.asked()) > 4 }, 10*time.Second, 5*time.Millisecond)
	cancel()
	require.Equal(t, exitDone, <-ended)
}

// TestColours is not parallel: it sets the environment.
func TestColours(t *testing.T) {
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, device.Close()) }()
	c := &session{s: streams{out: device}}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	require.True(t, bool(c.palette()))
	t.Setenv("TERM", "dumb")
	require.False(t, bool(c.palette()))
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	require.False(t, bool(c.palette()))
	require.False(t, bool((&session{s: streams{out: &buffer{}}}).palette()))
}
