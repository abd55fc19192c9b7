package agent

import (
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

const (
	reportsHealth     = protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth
	reportsConfig     = protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig
	reportsComponents = protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents
	reportsAll        = reportsHealth | reportsConfig | reportsComponents
	acceptsOpAMP      = protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings
	reportsConnection = protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus
	takesStatus       = protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus
	takesConfig       = takesStatus | protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig
)

// setters set each part to something that tells its name.
var setters = map[string]func(s *Session, name string){
	"description": func(s *Session, name string) {
		value := &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: name}}
		s.SetDescription(&protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{{Key: "service.name", Value: value}}})
	},
	"health": func(s *Session, name string) { s.SetHealth(&protobufs.ComponentHealth{Status: name}) },
	"config": func(s *Session, name string) {
		s.SetEffectiveConfig(&protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{
			ConfigMap: map[string]*protobufs.AgentConfigFile{"": {Body: []byte(name)}},
		}})
	},
	"components": func(s *Session, name string) {
		s.SetComponents(&protobufs.AvailableComponents{
			Hash: []byte(name), Components: map[string]*protobufs.ComponentDetails{name: {}},
		})
	},
}

// has names the parts of a message.
func has(m *protobufs.AgentToServer) []string {
	names := []string{}
	for _, p := range []struct {
		name    string
		present bool
	}{
		{"description", m.AgentDescription != nil},
		{"health", m.Health != nil},
		{"config", m.EffectiveConfig != nil},
		{"components", m.AvailableComponents != nil},
		{"details", len(m.AvailableComponents.GetComponents()) > 0},
		{"custom", m.CustomCapabilities != nil},
	} {
		if p.present {
			names = append(names, p.name)
		}
	}
	return names
}

// everything is what a full report has.
var everything = []string{"description", "health", "config", "components", "custom"}

// fullSession has something to say in every part, and has said it at the time returned.
func fullSession(t *testing.T) (*Session, time.Time) {
	t.Helper()
	s, now := newTestSession(t), time.Now()
	s.SetCapabilities(reportsAll)
	for _, set := range setters {
		set(s, "old")
	}
	s.report.forget()
	out, later := s.report.next(now, false)
	require.NotNil(t, out)
	require.Zero(t, later)
	require.Equal(t, everything, has(out.message))
	return s, now
}

func TestReportLeavesOutWhatIsKnown(t *testing.T) {
	t.Parallel()
	for name, set := range setters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, now := fullSession(t)
			set(s, "old")
			out, _ := s.report.next(now, false)
			require.Nil(t, out, "an equal value is no news")
			set(s, "new")
			out, _ = s.report.next(now, false)
			require.Equal(t, []string{name}, has(out.message))
			out, _ = s.report.next(now, true)
			require.Empty(t, has(out.message), "a heartbeat")
			require.NotZero(t, out.message.Capabilities, "always set")
			s.report.forget()
			out, _ = s.report.next(now, false)
			require.Equal(t, everything, has(out.message))
		})
	}
}

func TestReportGatesByCapability(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		agent  protobufs.AgentCapabilities
		server protobufs.ServerCapabilities
		want   []string
	}{
		"none":                         {0, 0, []string{"description", "custom"}},
		"health":                       {reportsHealth, 0, []string{"description", "health", "custom"}},
		"config, unknown server":       {reportsConfig, 0, []string{"description", "config", "custom"}},
		"config, server takes it":      {reportsConfig, takesConfig, []string{"description", "config", "custom"}},
		"config, server does not":      {reportsConfig, takesStatus, []string{"description", "custom"}},
		"components":                   {reportsComponents, 0, []string{"description", "components", "custom"}},
		"all":                          {reportsAll, takesConfig, everything},
		"server takes, agent does not": {0, takesConfig, []string{"description", "custom"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestSession(t)
			for _, set := range setters {
				set(s, "old")
			}
			s.SetCapabilities(tt.agent)
			s.report.setServerCapabilities(tt.server)
			s.report.lack(allParts)
			out, _ := s.report.next(time.Now(), false)
			require.Equal(t, tt.want, has(out.message))
			require.NotZero(t, out.message.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus))
		})
	}
}

func TestReportCapabilitiesChange(t *testing.T) {
	t.Parallel()
	s, now := fullSession(t)
	s.SetCapabilities(reportsAll)
	out, _ := s.report.next(now, false)
	require.Nil(t, out, "equal")

	s.SetCapabilities(reportsConfig)
	out, _ = s.report.next(now, false)
	require.NotNil(t, out, "the server hears of a capability that is gone")
	require.Empty(t, has(out.message))
	s.SetHealth(&protobufs.ComponentHealth{Status: "unheard"})
	out, _ = s.report.next(now, true)
	require.Empty(t, has(out.message))

	s.SetCapabilities(reportsConfig | reportsHealth)
	out, _ = s.report.next(now, false)
	require.Equal(t, []string{"health"}, has(out.message), "left out so far")
	require.Equal(t, "unheard", out.message.Health.Status)
}

func TestReportServerCapabilitiesChange(t *testing.T) {
	t.Parallel()
	s, now := fullSession(t)
	s.report.setServerCapabilities(takesConfig)
	out, _ := s.report.next(now, false)
	require.Nil(t, out, "it has the configuration already")

	s.report.setServerCapabilities(takesStatus)
	setters["config"](s, "new")
	out, _ = s.report.next(now, false)
	require.Empty(t, has(out.message))

	s.report.setServerCapabilities(takesConfig)
	out, _ = s.report.next(now, false)
	require.Equal(t, []string{"config"}, has(out.message))

	s.report.setServerCapabilities(takesStatus)
	s.report.forget()
	out, _ = s.report.next(now, false)
	require.Equal(t, everything, has(out.message), "a new connection, perhaps another server")
}

func TestReportComponentDetails(t *testing.T) {
	t.Parallel()
	s, now := fullSession(t)
	s.report.lack(partComponents | partComponentDetails)
	out, later := s.report.next(now, false)
	require.Equal(t, []string{"components", "details"}, has(out.message), "on request, at once")
	require.Equal(t, []byte("old"), out.message.AvailableComponents.Hash)
	require.Zero(t, later)

	s.report.lack(partComponents | partComponentDetails)
	out, later = s.report.next(now.Add(100*time.Millisecond), false)
	require.Nil(t, out, "not as often as it is asked for")
	require.Equal(t, 900*time.Millisecond, later)
	setters["health"](s, "new")
	out, later = s.report.next(now.Add(200*time.Millisecond), false)
	require.Equal(t, []string{"health"}, has(out.message), "holds up nothing else")
	require.Equal(t, 800*time.Millisecond, later)
	out, _ = s.report.next(now.Add(fullReportEvery), false)
	require.Equal(t, []string{"components", "details"}, has(out.message))
	s.report.putBack(out)
	out, _ = s.report.next(now.Add(fullReportEvery), false)
	require.Equal(t, []string{"components", "details"}, has(out.message), "did not get through")

	later2 := now.Add(2 * fullReportEvery)
	s.report.lack(allParts | partComponentDetails)
	out, _ = s.report.next(later2, false)
	require.Len(t, has(out.message), len(everything)+1)
	s.report.lack(allParts)
	out, later = s.report.next(later2, false)
	require.Nil(t, out)
	require.Equal(t, fullReportEvery, later)
}

func TestReportFullPutBack(t *testing.T) {
	t.Parallel()
	s, now := fullSession(t)
	s.report.lack(allParts)
	out, _ := s.report.next(now.Add(2*time.Second), false)
	s.report.putBack(out)
	again, later := s.report.next(now.Add(2*time.Second), false)
	require.Zero(t, later, "one that did not get through does not count")
	require.Equal(t, has(out.message), has(again.message))
}

func TestReportCustomMessagesInOrder(t *testing.T) {
	t.Parallel()
	s, now := fullSession(t)
	for _, name := range []string{"a", "b", "c"} {
		h, err := s.Custom.Register("org.example." + name)
		require.NoError(t, err)
		_, err = h.SendMessage(name, nil)
		require.NoError(t, err)
	}
	first, _ := s.report.next(now, false)
	require.Equal(t, []string{"org.example.a", "org.example.b", "org.example.c"}, first.message.CustomCapabilities.Capabilities)
	second, _ := s.report.next(now, false)
	require.Empty(t, has(second.message))
	s.report.putBack(second)
	s.report.putBack(first)
	var got []string
	for range 3 {
		out, _ := s.report.next(now, false)
		got = append(got, out.message.CustomMessage.Type)
		select {
		case <-s.report.wake: // more are waiting
		default:
			require.Len(t, got, 3, "the loop is woken while messages wait")
		}
	}
	require.Equal(t, []string{"a", "b", "c"}, got)
	out, _ := s.report.next(now, false)
	require.Nil(t, out)
}

func TestReportCustomCapabilities(t *testing.T) {
	t.Parallel()
	s, now := fullSession(t)
	one, err := s.Custom.Register("org.example")
	require.NoError(t, err)
	two, err := s.Custom.Register("org.example")
	require.NoError(t, err)
	out, _ := s.report.next(now, false)
	require.Equal(t, []string{"org.example"}, out.message.CustomCapabilities.Capabilities, "each once")
	one.Unregister()
	out, _ = s.report.next(now, false)
	require.Nil(t, out, "the other one still has it")
	s.Custom.UnregisterAll()
	two.Unregister() // twice does no harm
	out, _ = s.report.next(now, false)
	require.NotNil(t, out.message.CustomCapabilities, "an absent field clears nothing")
	require.Empty(t, out.message.CustomCapabilities.Capabilities)
}
