package fleet

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const manageable = ReportsStatus | AcceptsRemoteConfig | ReportsRemoteConfig | ReportsHealth

// TestState has a case for each line of State's table, and for each way past it.
func TestState(t *testing.T) {
	t.Parallel()
	later := start.Add(time.Second)
	good, bad := &Health{Healthy: true}, &Health{}
	refused := []Refusal{{Hash: "d"}}
	for name, c := range map[string]struct {
		want  State
		agent Agent
	}{
		"not connected":             {Disconnected, Agent{Health: bad, RemoteConfig: RemoteConfig{DesiredHash: "d", Refused: refused}}},
		"refused":                   {ConfigFailed, Agent{Connected: true, Health: bad, RemoteConfig: RemoteConfig{DesiredHash: "d", Refused: refused}}},
		"refused, back on old":      {ConfigFailed, Agent{Connected: true, RemoteConfig: RemoteConfig{DesiredHash: "d", ReportedHash: "o", Status: Applied, Refused: refused}}},
		"failed by itself":          {ConfigFailed, Agent{Connected: true, RemoteConfig: RemoteConfig{ReportedHash: "x", Status: Failed}}},
		"failed before, new wanted": {Pending, Agent{Connected: true, RemoteConfig: RemoteConfig{DesiredHash: "n", ReportedHash: "d", Status: Failed, Refused: refused}}},
		"unhealthy":                 {Unhealthy, Agent{Connected: true, Health: bad, RemoteConfig: RemoteConfig{DesiredHash: "d"}}},
		"health unknown":            {Healthy, Agent{Connected: true}},
		"nothing desired":           {Healthy, Agent{Connected: true, Health: good}},
		"runs the desired":          {Healthy, Agent{Connected: true, Health: good, RemoteConfig: RemoteConfig{DesiredHash: "d", ReportedHash: "d", Status: Applied}}},
		"applying":                  {Pending, Agent{Connected: true, RemoteConfig: RemoteConfig{DesiredHash: "d", ReportedHash: "d", Status: Applying}}},
		"not offered":               {Pending, Agent{Connected: true, RemoteConfig: RemoteConfig{DesiredHash: "d", ReportedHash: "o", Status: Applied, ReportedAt: start}}},
		"not answered":              {Pending, Agent{Connected: true, RemoteConfig: RemoteConfig{DesiredHash: "d", OfferedHash: "d", OfferedAt: later, ReportedHash: "o", Status: Applied, ReportedAt: start}}},
		"answered another": {
			Drifted,
			Agent{Connected: true, RemoteConfig: RemoteConfig{DesiredHash: "d", OfferedHash: "d", OfferedAt: start, ReportedHash: "o", Status: Applied, ReportedAt: later}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.agent.Capabilities = manageable
			require.Equal(t, c.want, c.agent.State())
		})
	}
	readOnly := Agent{Connected: true, Capabilities: ReportsStatus, RemoteConfig: RemoteConfig{DesiredHash: "d"}}
	require.Equal(t, Healthy, readOnly.State(), "an agent that takes no remote configuration cannot be behind")
	silent := Agent{Connected: true, Capabilities: AcceptsRemoteConfig, RemoteConfig: RemoteConfig{DesiredHash: "d", OfferedHash: "d"}}
	require.Equal(t, Healthy, silent.State(), "an agent that does not report is believed")
	for _, s := range states {
		parsed, err := ParseState(string(s))
		require.NoError(t, err)
		require.Equal(t, s, parsed)
	}
	_, err := ParseState("ill")
	require.Error(t, err)
}

func TestAFailedSetIsNotOfferedAgain(t *testing.T) {
	t.Parallel()
	a := Agent{Connected: true, Capabilities: manageable, RemoteConfig: RemoteConfig{DesiredHash: "a"}}
	require.True(t, a.ShouldOffer())
	a.RemoteConfig.Report(start, "a", Applied, "")
	require.False(t, a.ShouldOffer())
	a.RemoteConfig.DesiredHash = "b"
	require.True(t, a.ShouldOffer())
	a.RemoteConfig.Report(start, "b", Failed, "no such processor")
	require.False(t, a.ShouldOffer())
	a.RemoteConfig.Report(start, "a", Applied, "") // as upstream's supervisor does after it has gone back
	require.False(t, a.ShouldOffer(), "b failed here")
	require.Equal(t, ConfigFailed, a.State())
	refusal, refused := a.RemoteConfig.Refusal("b")
	require.True(t, refused)
	require.Equal(t, Refusal{Hash: "b", Error: "no such processor", At: start}, refusal)
	a.RemoteConfig.Report(start, "b", Applied, "")
	_, refused = a.RemoteConfig.Refusal("b")
	require.False(t, refused, "applied after all")
	for i := range 2 * maxRefused {
		a.RemoteConfig.Report(start, fmt.Sprint(i), Failed, "")
	}
	require.Len(t, a.RemoteConfig.Refused, maxRefused)
	a.Connected = false
	a.RemoteConfig.DesiredHash = "new"
	require.False(t, a.ShouldOffer())
}

func TestAgentIsKeptAsItIs(t *testing.T) {
	t.Parallel()
	a := Agent{
		UID: "018f2d3c-0000-7000-8000-000000000001", Identifying: map[string]string{"service.version": "1", "x": "i"},
		NonIdentifying: map[string]string{"x": "n", "y": "n"}, Capabilities: manageable, FirstSeen: start,
		Health:       &Health{Components: map[string]Health{"pipeline:traces": {Healthy: true, Components: map[string]Health{"receiver:otlp": {}}}}},
		RemoteConfig: RemoteConfig{Refused: []Refusal{{Hash: "x", At: start}}},
	}
	require.Equal(t, map[string]string{"service.version": "1", "x": "i", "y": "n"}, a.Attributes())
	require.Equal(t, "1", a.Version())
	require.Equal(t, []string{"ReportsStatus", "AcceptsRemoteConfig", "ReportsHealth", "ReportsRemoteConfig"}, a.Capabilities.Names())
	text, err := json.Marshal(a)
	require.NoError(t, err)
	var back Agent
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, a, back)
	copied := a.Clone()
	require.Equal(t, a, copied)
	copied.Health.Components["pipeline:traces"].Components["receiver:otlp"] = Health{Status: "changed"}
	copied.Identifying["x"] = "changed"
	require.Equal(t, back, a, "the copy shares nothing")
	require.NoError(t, ValidateUID(a.UID))
	for _, uid := range []string{"", "018F2D3C-0000-7000-8000-000000000001", "018f2d3c000070008000000000000001", a.UID + "0", "018f2d3c-0000-7000-8000-00000000000g"} {
		require.Error(t, ValidateUID(uid), uid)
	}
}
