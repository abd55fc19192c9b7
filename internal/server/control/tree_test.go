package control

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
)

func TestTreeKeepsEverything(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC)
	components := map[string]fleet.Health{
		"pipeline:traces": {Healthy: true, Status: "StatusOK", StartTime: at, StatusTime: at.Add(time.Nanosecond), Components: map[string]fleet.Health{
			"receiver:otlp": {LastError: "broken \x00 \"quoted\"", Status: "StatusPermanentError"},
		}},
		"": {},
	}
	require.Equal(t, components, fold(components).unfold())
	require.Nil(t, fold(nil).unfold())
	require.Nil(t, fold(map[string]fleet.Health{}))
}
