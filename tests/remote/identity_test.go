package remote

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// What the Collector says of itself in its own telemetry stays the same through reloads, and is what the server knows it by.
func TestInstanceIDStays(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	ids := func() (all []string) {
		e.fleet.mu.Lock()
		defer e.fleet.mu.Unlock()
		for _, m := range e.fleet.messages {
			for _, a := range m.GetAgentDescription().GetIdentifyingAttributes() {
				if a.Key == "service.instance.id" {
					all = append(all, a.Value.GetStringValue())
				}
			}
		}
		return all
	}
	e.fleet.push("a", addAttribute)
	e.fleet.await(0, "a", "APPLIED")
	e.awaitProcessors("attributes/test", "batch")
	e.collector.Stop()
	e.collector.Start()
	harness.Await(t, 30*time.Second, "the second process", func() (bool, any) { return len(ids()) > 1, ids() })
	e.fleet.mu.Lock()
	uid := uuid.UUID(e.fleet.uid)
	e.fleet.mu.Unlock()
	for _, id := range ids() {
		require.Equal(t, uid.String(), id)
	}
	e.collector.Stop()
}
