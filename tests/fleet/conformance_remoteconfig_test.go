package fleet

import (
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	applied  = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED
	applying = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLYING
	failed   = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED
)

func hasRemoteConfig(m *protobufs.ServerToAgent) bool { return m.RemoteConfig != nil }

// rollOut gives a configuration to this agent; if it is not there yet, it gets it when it comes.
func (a *speaker) rollOut(body string) apiv1.Rollout {
	a.Helper()
	a.ask(http.MethodPut, "/configurations/"+a.name(), apiv1.SaveConfiguration{Selector: a.selector(), Body: body}, nil)
	soak := "0s"
	var rollout apiv1.Rollout
	a.ask(http.MethodPost, "/rollouts", apiv1.RolloutRequest{Configuration: a.name(), Waves: []string{"100%"}, Soak: &soak}, &rollout)
	return rollout
}

// release is rollOut before the agent is there: nobody's word can undo it.
func (a *speaker) release(body string) {
	a.Helper()
	id := a.rollOut(body).ID
	harness.Await(a, soon, "released", func() (bool, any) {
		var r apiv1.Rollout
		a.ask(http.MethodGet, "/rollouts/"+id, nil, &r)
		return r.State == "succeeded", r
	})
}

// offer says hello and waits for the configuration: that it was released is known before it takes effect.
func (a *speaker) offer() *protobufs.ServerToAgent {
	a.Helper()
	if m := a.hello(); hasRemoteConfig(m) {
		return m
	}
	return a.until("the offer", hasRemoteConfig)
}

// take is the hash of such an offer.
func (a *speaker) take() []byte {
	a.Helper()
	hash := a.offer().RemoteConfig.ConfigHash
	require.NotEmpty(a, hash)
	return hash
}

// status is what the agent says of a configuration from now on, also in its full report.
func (a *speaker) status(hash []byte, s protobufs.RemoteConfigStatuses) *protobufs.AgentToServer {
	a.full.RemoteConfigStatus = &protobufs.RemoteConfigStatus{LastRemoteConfigHash: hash, Status: s}
	if s == failed {
		a.full.RemoteConfigStatus.ErrorMessage = "it does not start"
	}
	return &protobufs.AgentToServer{RemoteConfigStatus: a.full.RemoteConfigStatus}
}

// remoteConfigDuties are about configurations.
var remoteConfigDuties = []duty{
	{name: "Configuration/an offer has a hash, and its files a content type", run: func(a *speaker) {
		a.release("receivers: {}\n")
		m := a.offer()
		require.NotEmpty(a, m.RemoteConfig.ConfigHash)
		require.Equal(a, a.believed("offered", func(v apiv1.Agent) bool { return v.RemoteConfig.OfferedHash != "" }).RemoteConfig.OfferedHash, hex.EncodeToString(m.RemoteConfig.ConfigHash))
		require.Len(a, m.RemoteConfig.Config.ConfigMap, 1)
		for name, file := range m.RemoteConfig.Config.ConfigMap {
			require.True(a, strings.HasSuffix(name, a.name()), name)
			require.Equal(a, "text/yaml", file.ContentType)
			require.Equal(a, "receivers: {}\n", string(file.Body))
		}
	}},
	{name: "Configuration/an agent that is there is offered it without asking", run: func(a *speaker) {
		require.Nil(a, a.hello().RemoteConfig)
		rollout := a.rollOut("receivers: {}\n")
		m := a.until("the offer", hasRemoteConfig)
		a.say(a.status(m.RemoteConfig.ConfigHash, applied))
		a.server.AwaitRollout(rollout.ID, "succeeded", soon)
	}},
	{name: "Configuration/another content has another hash, the same content the same one", run: func(a *speaker) {
		a.hello()
		var hashes []string
		for _, body := range []string{"receivers: {}\n", "exporters: {}\n", "receivers: {}\n"} {
			rollout := a.rollOut(body)
			m := a.until("the offer", hasRemoteConfig)
			a.say(a.status(m.RemoteConfig.ConfigHash, applied))
			a.server.AwaitRollout(rollout.ID, "succeeded", soon)
			hashes = append(hashes, hex.EncodeToString(m.RemoteConfig.ConfigHash))
		}
		require.NotEqual(a, hashes[0], hashes[1])
		require.Equal(a, hashes[0], hashes[2])
	}},
	{name: "Configuration/nothing more to run is an empty map, with a hash", run: func(a *speaker) {
		a.release("receivers: {}\n")
		first := a.take()
		a.say(a.status(first, applied))
		a.ask(http.MethodDelete, "/configurations/"+a.name(), nil, nil)
		m := a.until("the empty map", hasRemoteConfig)
		require.Empty(a, m.RemoteConfig.Config.ConfigMap)
		require.NotEmpty(a, m.RemoteConfig.ConfigHash)
		require.NotEqual(a, first, m.RemoteConfig.ConfigHash)
	}},
	{name: "Interoperability of Partial Implementations/without AcceptsRemoteConfig no configuration comes", run: func(a *speaker) {
		a.full.Capabilities &^= acceptsRemoteConfig
		a.release("receivers: {}\n")
		require.Nil(a, a.hello().RemoteConfig)
		a.say(a.status(nil, applied))
		a.rollOut("exporters: {}\n")
		a.never("a configuration", hasRemoteConfig)
	}},
	{name: "Interoperability of Partial Implementations/AcceptsRemoteConfig taken away counts at once", run: func(a *speaker) {
		a.hello()
		a.full.Capabilities &^= acceptsRemoteConfig
		a.beat()
		a.rollOut("receivers: {}\n")
		a.never("a configuration", hasRemoteConfig)
		require.Nil(a, a.hello().RemoteConfig)
	}},
	{name: "Interoperability of Partial Implementations/AcceptsRemoteConfig added gets it with the answer", run: func(a *speaker) {
		a.release("receivers: {}\n")
		a.full.Capabilities &^= acceptsRemoteConfig
		require.Nil(a, a.hello().RemoteConfig)
		a.believed("it is desired", func(v apiv1.Agent) bool { return v.RemoteConfig.DesiredHash != "" })
		a.full.Capabilities |= acceptsRemoteConfig
		require.NotNil(a, a.beat().RemoteConfig)
	}},
	{name: "Interoperability of Partial Implementations/AcceptsRemoteConfig away and back gets what was not taken", run: func(a *speaker) {
		a.release("receivers: {}\n")
		a.take()
		a.full.Capabilities &^= acceptsRemoteConfig
		require.Nil(a, a.beat().RemoteConfig)
		a.full.Capabilities |= acceptsRemoteConfig
		require.NotNil(a, a.beat().RemoteConfig)
	}},
	{name: "RemoteConfigStatus/what is reported as applied is not sent again", run: notSentAgain(applied)},
	{name: "RemoteConfigStatus/what is reported as being applied is not sent again", run: notSentAgain(applying)},
	{name: "RemoteConfigStatus/what is reported as failed is not sent again", run: notSentAgain(failed)},
	{name: "RemoteConfigStatus/an agent that says nothing of it is not sent it with every message", run: func(a *speaker) {
		a.release("receivers: {}\n")
		a.take()
		a.never("the same again", hasRemoteConfig)
	}},
	{name: "RemoteConfigStatus/an agent without ReportsRemoteConfig is offered it once a connection", run: func(a *speaker) {
		a.full.Capabilities &^= uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig)
		a.full.RemoteConfigStatus = nil
		a.release("receivers: {}\n")
		hash := a.take()
		require.Nil(a, a.hello().RemoteConfig)
		require.Nil(a, a.beat().RemoteConfig)
		a.leave()
		require.Equal(a, hash, a.hello().RemoteConfig.GetConfigHash())
		a.never("the same again", hasRemoteConfig)
	}},
	{name: "RemoteConfigStatus/another hash on a new connection is offered the right one", run: sentAgain([]byte("of another server"))},
	{name: "RemoteConfigStatus/no hash on a new connection is offered it again", run: sentAgain(nil)},
	{name: "RemoteConfigStatus/an agent that goes back to another hash is offered the right one with the answer", run: func(a *speaker) {
		a.release("receivers: {}\n")
		hash := a.take()
		a.say(a.status(hash, applied))
		m := a.say(a.status([]byte("of another server"), applied))
		require.Equal(a, hash, m.RemoteConfig.GetConfigHash())
	}},
	{name: "RemoteConfigStatus/a process without memory is offered it again", run: func(a *speaker) {
		a.release("receivers: {}\n")
		hash := a.take()
		a.say(a.status(hash, applied))
		a.seq = 0
		a.status(nil, protobufs.RemoteConfigStatuses_RemoteConfigStatuses_UNSET)
		require.Equal(a, hash, a.hello().RemoteConfig.GetConfigHash())
	}},
	{name: "RemoteConfigStatus/what failed is not offered again, also to who goes back to another one", run: func(a *speaker) {
		a.release("receivers: {none: {}}\n")
		hash := a.take()
		require.Nil(a, a.say(a.status(hash, failed)).RemoteConfig)
		require.Nil(a, a.say(a.status([]byte("of another server"), applied)).RemoteConfig)
		a.leave()
		require.Nil(a, a.hello().RemoteConfig)
		require.Equal(a, "config_failed", a.believed("back", func(v apiv1.Agent) bool { return v.Connected }).State)
		a.never("what failed", hasRemoteConfig)
	}},
}

// notSentAgain reports the offer's hash, and looks at what comes after: on this connection, and on another one.
func notSentAgain(s protobufs.RemoteConfigStatuses) func(*speaker) {
	return func(a *speaker) {
		a.release("receivers: {}\n")
		hash := a.take()
		require.Nil(a, a.say(a.status(hash, s)).RemoteConfig)
		require.Nil(a, a.hello().RemoteConfig)
		a.leave()
		require.Nil(a, a.hello().RemoteConfig)
		a.never("the same again", hasRemoteConfig)
	}
}

// sentAgain comes back with another hash than it went with.
func sentAgain(other []byte) func(*speaker) {
	return func(a *speaker) {
		a.release("receivers: {}\n")
		hash := a.take()
		a.say(a.status(hash, applied))
		a.leave()
		a.status(other, applied)
		require.Equal(a, hash, a.hello().RemoteConfig.GetConfigHash())
	}
}
