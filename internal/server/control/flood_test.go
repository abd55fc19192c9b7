package control

import (
	"fmt"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// flip is one message that makes an event.
func (a *testAgent) flip(n int) {
	health := &protobufs.ComponentHealth{Healthy: n%2 == 1, LastError: "broken"}
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, Health: health})
}

// An agent that changes with every message does not fill the disk with its story, and the story says what it leaves out.
func TestAnAgentFloodsItsEvents(t *testing.T) {
	t.Parallel()
	later := time.Duration(0)
	w := newWorld(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(later) } })
	a, calm := w.agent(nil), w.agent(nil)
	a.hello()
	calm.hello()
	const flips = 1000
	for n := range flips {
		a.flip(n)
	}
	require.LessOrEqual(t, len(w.kinds(a.uid.String())), eventBurst+1)
	calm.flip(0)
	require.Contains(t, w.kinds(calm.uid.String()), fleet.AgentUnhealthy, "others are not concerned")

	w.mu.Lock()
	later = eventEvery
	w.mu.Unlock()
	a.flip(0)
	require.NoError(t, w.save(t.Context()))
	events, err := w.db.ListEvents(t.Context(), store.EventQuery{Agent: a.uid.String(), Limit: 2})
	require.NoError(t, err)
	require.Equal(t, fleet.AgentUnhealthy, events[0].Kind)
	require.Equal(t, fleet.EventsLeftOut, events[1].Kind)
	require.Equal(t, fmt.Sprintf("%d events, more than are kept of one agent", flips+1-eventBurst), events[1].Message)
}
