package fleet

import (
	"encoding/hex"
	"net/http"
	"net/url"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

func hasSettings(m *protobufs.ServerToAgent) bool { return m.ConnectionSettings != nil }

// wish is for this agent's connections alone.
func (a *speaker) wish(offer apiv1.ConnectionOffer) {
	a.Helper()
	a.ask(http.MethodPut, "/connections/"+url.PathEscape(a.name()), apiv1.Connection{Selector: a.selector(), ConnectionOffer: offer}, nil)
}

// allClasses is a wish for each class of connections.
func allClasses() apiv1.ConnectionOffer {
	to := func(signal string) *apiv1.Destination {
		return &apiv1.Destination{Endpoint: "https://otlp.example.com/v1/" + signal, Headers: map[string]string{"Authorization": "Bearer 1"}}
	}
	return apiv1.ConnectionOffer{
		OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "17s"}, OwnMetrics: to("metrics"), OwnTraces: to("traces"), OwnLogs: to("logs"),
		Other: map[string]apiv1.Destination{"mine": *to("anything")},
	}
}

// classes are those that an offer has, as the capability bits that they need.
func classes(c *protobufs.ConnectionSettingsOffers) (bits uint64) {
	for bit, there := range map[uint64]bool{
		acceptsOpAMP: c.GetOpamp() != nil, reportsOwnMetrics: c.GetOwnMetrics() != nil, reportsOwnTraces: c.GetOwnTraces() != nil,
		reportsOwnLogs: c.GetOwnLogs() != nil, acceptsOther: len(c.GetOtherConnections()) > 0,
	} {
		if there {
			bits |= bit
		}
	}
	return bits
}

// connection is what the agent says of connection settings from now on.
func (a *speaker) connection(hash []byte, s protobufs.ConnectionSettingsStatuses) *protobufs.AgentToServer {
	a.full.ConnectionSettingsStatus = &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: hash, Status: s}
	return &protobufs.AgentToServer{ConnectionSettingsStatus: a.full.ConnectionSettingsStatus}
}

const (
	settingsApplied  = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED
	settingsApplying = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLYING
	settingsFailed   = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED
)

// connectionDuties are about connection settings.
var connectionDuties = []duty{
	{name: "OpAMPConnectionSettings/an offer has a hash, a destination and a heartbeat interval", run: func(a *speaker) {
		a.full.Capabilities |= acceptsOpAMP | reportsConnectionWord
		a.wish(apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{}})
		c := a.hello().ConnectionSettings
		require.NotEmpty(a, c.GetHash())
		require.EqualValues(a, 30, c.GetOpamp().GetHeartbeatIntervalSeconds(), "0 would end heartbeats")
		endpoint := map[string]string{overWebSocket: a.server.WebSocket(), overHTTP: a.server.HTTP()}[a.over]
		require.Equal(a, endpoint, c.GetOpamp().GetDestinationEndpoint())
	}},
	{name: "OpAMPConnectionSettings/an agent that is there is offered a change without asking, under another hash", run: func(a *speaker) {
		a.full.Capabilities |= acceptsOpAMP | reportsConnectionWord
		require.Nil(a, a.hello().ConnectionSettings)
		a.wish(apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "20s"}})
		first := a.until("an offer", hasSettings).ConnectionSettings
		a.say(a.connection(first.Hash, settingsApplied))
		a.wish(apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "21s"}})
		second := a.until("another offer", hasSettings).ConnectionSettings
		require.EqualValues(a, 21, second.Opamp.HeartbeatIntervalSeconds)
		require.NotEqual(a, first.Hash, second.Hash)
	}},
	{name: "ConnectionSettingsOffers/without any class nothing comes", run: func(a *speaker) {
		a.wish(allClasses())
		require.Nil(a, a.hello().ConnectionSettings)
		a.never("connection settings", hasSettings)
	}},
	{name: "ConnectionSettingsOffers/AcceptsOpAMPConnectionSettings gets that class alone", run: onlyClass(acceptsOpAMP)},
	{name: "ConnectionSettingsOffers/ReportsOwnMetrics gets that class alone", run: onlyClass(reportsOwnMetrics)},
	{name: "ConnectionSettingsOffers/ReportsOwnTraces gets that class alone", run: onlyClass(reportsOwnTraces)},
	{name: "ConnectionSettingsOffers/ReportsOwnLogs gets that class alone", run: onlyClass(reportsOwnLogs)},
	{name: "ConnectionSettingsOffers/AcceptsOtherConnectionSettings gets that class alone", run: onlyClass(acceptsOther)},
	{name: "ConnectionSettingsOffers/a class added at runtime comes with the answer", run: func(a *speaker) {
		a.full.Capabilities |= reportsOwnMetrics | reportsConnectionWord
		a.wish(allClasses())
		c := a.hello().ConnectionSettings
		require.Equal(a, reportsOwnMetrics, classes(c))
		a.say(a.connection(c.Hash, settingsApplied))
		a.full.Capabilities |= reportsOwnLogs
		require.Equal(a, reportsOwnMetrics|reportsOwnLogs, classes(a.beat().ConnectionSettings))
	}},
	{name: "ConnectionSettingsOffers/a class taken away at runtime comes no more", run: func(a *speaker) {
		a.full.Capabilities |= reportsOwnMetrics | acceptsOpAMP | reportsConnectionWord
		a.hello()
		a.full.Capabilities &^= reportsOwnMetrics
		a.beat()
		a.wish(allClasses())
		require.Equal(a, acceptsOpAMP, classes(a.until("an offer", hasSettings).ConnectionSettings))
	}},
	{name: "ConnectionSettingsStatus/what is reported as applied is not sent again", run: settingsNotSentAgain(settingsApplied, "APPLIED")},
	{name: "ConnectionSettingsStatus/what is reported as being applied is not sent again", run: settingsNotSentAgain(settingsApplying, "APPLYING")},
	{name: "ConnectionSettingsStatus/what is reported as failed is not sent again", run: settingsNotSentAgain(settingsFailed, "FAILED")},
	{name: "ConnectionSettingsStatus/no hash on a new connection is offered it again", run: func(a *speaker) {
		a.full.Capabilities |= reportsOwnMetrics | reportsConnectionWord
		a.wish(allClasses())
		c := a.hello().ConnectionSettings
		a.say(a.connection(c.GetHash(), settingsApplied))
		a.leave()
		a.full.ConnectionSettingsStatus = &protobufs.ConnectionSettingsStatus{}
		require.Equal(a, c.GetHash(), a.hello().ConnectionSettings.GetHash())
	}},
	{name: "ConnectionSettingsStatus/an agent that goes back to another hash is offered the right one with the answer", run: func(a *speaker) {
		a.full.Capabilities |= reportsOwnMetrics | reportsConnectionWord
		a.wish(allClasses())
		hash := a.hello().ConnectionSettings.GetHash()
		require.NotEmpty(a, hash)
		require.Nil(a, a.say(a.connection(hash, settingsApplied)).ConnectionSettings)
		require.Equal(a, hash, a.say(a.connection([]byte("of another server"), settingsApplied)).ConnectionSettings.GetHash())
	}},
	{name: "ConnectionSettingsStatus/an agent that does not report it is not sent it with every message", run: func(a *speaker) {
		a.full.Capabilities |= reportsOwnMetrics
		a.wish(allClasses())
		require.NotNil(a, a.hello().ConnectionSettings)
		require.Nil(a, a.hello().ConnectionSettings)
		a.never("the same again", hasSettings)
	}},
	{name: "OpAMPConnectionSettings.heartbeat_interval_seconds/who misses three beats is away, and back with the next", run: func(a *speaker) {
		a.full.Capabilities |= acceptsOpAMP | reportsConnectionWord
		a.wish(apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "1s"}})
		c := a.hello().ConnectionSettings
		require.EqualValues(a, 1, c.GetOpamp().GetHeartbeatIntervalSeconds())
		require.Nil(a, a.say(a.connection(c.Hash, settingsApplied)).ErrorResponse)
		seen := a.believed("there", healthy).LastSeen
		a.beat()
		a.believed("the beat", func(v apiv1.Agent) bool { return v.Connected && v.LastSeen.After(seen) })
		a.believed("away", func(v apiv1.Agent) bool { return !v.Connected })
		a.hangUp()
		require.Zero(a, a.beat().Flags)
		a.believed("back", healthy)
	}},
}

func onlyClass(bit uint64) func(*speaker) {
	return func(a *speaker) {
		a.full.Capabilities |= bit | reportsConnectionWord
		a.wish(allClasses())
		c := a.hello().ConnectionSettings
		require.Equal(a, bit, classes(c))
		require.NotEmpty(a, c.GetHash())
		if bit == acceptsOpAMP {
			require.EqualValues(a, 17, c.GetOpamp().GetHeartbeatIntervalSeconds())
		}
		if bit == reportsOwnTraces {
			require.Equal(a, "https://otlp.example.com/v1/traces", c.OwnTraces.DestinationEndpoint)
			require.Equal(a, "Bearer 1", c.OwnTraces.Headers.Headers[0].Value)
		}
	}
}

func settingsNotSentAgain(s protobufs.ConnectionSettingsStatuses, shown string) func(*speaker) {
	return func(a *speaker) {
		a.full.Capabilities |= reportsOwnMetrics | reportsConnectionWord
		a.wish(allClasses())
		c := a.hello().ConnectionSettings
		require.NotEmpty(a, c.GetHash())
		require.Nil(a, a.say(a.connection(c.Hash, s)).ConnectionSettings)
		require.Equal(a, hex.EncodeToString(c.Hash), a.believed("reported", func(v apiv1.Agent) bool { return v.ConnectionSettings.Status == shown }).ConnectionSettings.ReportedHash)
		require.Nil(a, a.hello().ConnectionSettings)
		a.leave()
		require.Nil(a, a.hello().ConnectionSettings)
		a.never("the same again", hasSettings)
	}
}
