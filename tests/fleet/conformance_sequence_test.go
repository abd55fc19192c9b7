package fleet

import (
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

// sequenceDuties are about sequence numbers.
var sequenceDuties = []duty{
	{name: "Agent Status Compression/messages in order are not asked for more", run: func(a *speaker) {
		a.seq = 1000
		require.Zero(a, a.hello().Flags)
		for range 5 {
			require.Zero(a, a.beat().Flags)
		}
	}},
	{name: "Agent Status Compression/a gap is asked for everything, and a full report ends that", run: func(a *speaker) {
		a.hello()
		a.seq++
		require.Equal(a, fullState, a.beat().Flags&fullState)
		require.Zero(a, a.hello().Flags)
		require.Zero(a, a.beat().Flags)
	}},
	{name: "Agent Status Compression/a number again is a gap, too", run: func(a *speaker) {
		a.hello()
		a.beat()
		a.seq--
		require.Equal(a, fullState, a.beat().Flags&fullState)
	}},
	{name: "Agent Status Compression/an unknown agent is asked for everything", run: func(a *speaker) {
		a.seq = 41
		require.Equal(a, fullState, a.beat().Flags&fullState)
		require.Zero(a, a.hello().Flags)
		a.believed("known", healthy)
	}},
	{name: "Agent Status Compression/a full report of an unknown agent is enough, whatever its number", run: func(a *speaker) {
		a.seq = 1 << 40
		require.Zero(a, a.hello().Flags)
	}},
	{name: "Agent Status Compression/a process that begins anew is no gap, and what it leaves out is gone", run: func(a *speaker) {
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"com.example"}}
		a.hello()
		a.beat()
		a.believed("the capability", func(v apiv1.Agent) bool { return len(v.CustomCapabilities) == 1 })
		a.seq, a.full.CustomCapabilities = 0, nil
		require.Zero(a, a.hello().Flags)
		a.believed("none", func(v apiv1.Agent) bool { return len(v.CustomCapabilities) == 0 })
	}},
	{name: "Agent Status Compression/a reconnect that goes on with its sequence is asked for nothing", run: func(a *speaker) {
		a.hello()
		a.beat()
		if a.hangUp(); a.over == overHTTP {
			a.leave()
		} else {
			a.believed("away", func(v apiv1.Agent) bool { return !v.Connected })
		}
		require.Zero(a, a.beat().Flags)
		require.Equal(a, "receivers: {}\n", a.effective())
		require.Equal(a, "speaker", a.believed("back", healthy).IdentifyingAttributes["service.name"])
	}},
	{name: "Agent Status Compression/a reconnect that skipped a message is asked for everything", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		a.hangUp()
		a.seq++
		require.Equal(a, fullState, a.beat().Flags&fullState)
	}},
}

// identityDuties are about instance UIDs.
var identityDuties = []duty{
	{name: "AgentToServer.flags/RequestInstanceUid gets a UUIDv7, and the agent goes on under it", run: func(a *speaker) {
		a.full.Flags = requestUID
		given := a.hello().AgentIdentification.GetNewInstanceUid()
		require.Len(a, given, 16)
		require.EqualValues(a, 7, uuid.UUID(given).Version())
		require.Equal(a, given, a.hello().AgentIdentification.GetNewInstanceUid(), "the same until it is used")
		old := *a
		a.uid, a.full.Flags = uuid.UUID(given), 0
		m := a.hello()
		require.Equal(a, given, m.InstanceUid)
		require.Nil(a, m.AgentIdentification)
		a.believed("under the new one", healthy)
		require.Error(a, a.server.Do("GET", "/agents/"+old.uid.String(), nil, nil))
	}},
	{name: "Duplicate WebSocket Connections/the second agent under a UID gets another one, and the first is left alone", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		b := a.another()
		b.uid = a.uid
		// Whoever answers pings is alive, and pongs are sent while something reads.
		first := make(chan *protobufs.ServerToAgent, 1)
		go func() {
			defer close(first)
			if m, err := a.tryRead(soon); err == nil {
				first <- m
			}
		}()
		given := b.hello().AgentIdentification.GetNewInstanceUid()
		require.Len(a, given, 16)
		require.NotEqual(a, a.uid[:], given)
		b.uid = uuid.UUID(given)
		require.Equal(a, given, b.hello().InstanceUid)
		b.believed("the second", healthy)
		a.write(append([]byte{0}, a.encoded(&protobufs.AgentToServer{})...))
		require.Equal(a, a.uid[:], (<-first).GetInstanceUid())
		require.Positive(a, a.believed("the first", healthy).Duplicates)
	}},
	{name: "Duplicate instance_uid Detection/who comes over HTTP while the UID lives on a WebSocket gets another one", over: overHTTP, run: func(a *speaker) {
		first := newSpeaker(a.T, a.server, overWebSocket)
		first.uid = a.uid
		first.hello()
		reader := first.ws.CloseRead(a.Context()) // answers pings
		given := a.hello().AgentIdentification.GetNewInstanceUid()
		require.Len(a, given, 16)
		require.NotEqual(a, a.uid[:], given)
		require.NoError(a, reader.Err(), "the first is left alone")
		require.Equal(a, "ws", first.believed("still there", healthy).Transport)
	}},
	{name: "Duplicate instance_uid Detection/two agents that take turns under one UID are told apart", over: overHTTP, run: func(a *speaker) {
		b := a.another()
		b.uid, b.seq = a.uid, 1000
		a.hello()
		b.hello()
		for range 8 {
			for _, s := range []*speaker{a, b} {
				if given := s.beat().AgentIdentification.GetNewInstanceUid(); given != nil {
					s.uid = uuid.UUID(given)
					require.Nil(a, s.hello().ErrorResponse)
					s.believed("one of its own", healthy)
					require.NotEqual(a, a.uid, b.uid)
					return
				}
			}
		}
		require.Fail(a, "nobody was given another UID")
	}},
	{name: "WebSocket Transport/several agents on one connection are told apart", over: overWebSocket, run: func(a *speaker) {
		a.hello()
		b := a.another()
		b.ws = a.ws
		require.Equal(a, b.uid[:], b.hello().InstanceUid)
		require.Equal(a, a.uid[:], a.beat().InstanceUid)
		a.believed("the first", healthy)
		b.believed("the second", healthy)
		b.rollOut("receivers: {}\n")
		m := b.until("its configuration", hasRemoteConfig)
		require.Equal(a, b.uid[:], m.InstanceUid)
		b.say(&protobufs.AgentToServer{AgentDisconnect: &protobufs.AgentDisconnect{}})
		b.believed("gone", func(v apiv1.Agent) bool { return !v.Connected })
		require.Equal(a, a.uid[:], a.beat().InstanceUid)
		require.True(a, a.believed("still there", healthy).Connected)
		b.ws = nil
	}},
	{name: "AgentToServer.instance_uid/16 bytes or BAD_REQUEST with nothing beside it", run: func(a *speaker) {
		for _, uid := range [][]byte{nil, make([]byte, 15), append([]byte{1}, make([]byte, 14)...), append([]byte{1}, make([]byte, 16)...), make([]byte, 16)} {
			data := append([]byte{0x0a, byte(len(uid))}, uid...)
			if uid == nil {
				data = []byte{0x10, 1}
			}
			a.refused(data)
		}
		require.Nil(a, a.hello().ErrorResponse, "it may go on")
	}},
	{name: "ServerErrorResponse/what cannot be read is a BAD_REQUEST", run: func(a *speaker) {
		for _, data := range [][]byte{{0x0a, 0x10, 1, 2}, {0xff, 0xff, 0xff}, {0x0f, 1}, []byte("receivers: {}")} {
			a.refused(data)
		}
		require.Nil(a, a.hello().ErrorResponse, "it may go on")
	}},
}

// refused requires a BAD_REQUEST that has nothing beside it.
func (a *speaker) refused(data []byte) {
	a.Helper()
	var m *protobufs.ServerToAgent
	if a.over == overHTTP {
		resp, body := a.post(data)
		require.Equal(a, 400, resp.StatusCode)
		require.Equal(a, "application/x-protobuf", resp.Header.Get("Content-Type"))
		m = a.decoded(body)
	} else {
		a.write(append([]byte{0}, data...))
		m = a.read()
	}
	a.requireBadRequest(m)
}
