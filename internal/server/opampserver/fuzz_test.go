package opampserver

import (
	"context"
	"log/slog"
	"testing"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// FuzzFrame: whatever a frame holds, there is exactly one answer, it can be read, and an error has nothing beside it.
func FuzzFrame(f *testing.F) {
	uid := uuid.MustParse("01980000-0000-7000-8000-000000000001")
	for _, m := range []*protobufs.AgentToServer{
		full(uid, 0), beat(uid, 1), beat(uid, 9),
		with(full(uid, 2), func(m *protobufs.AgentToServer) { m.Flags = 1 }),
		with(beat(uid, 3), func(m *protobufs.AgentToServer) { m.AgentDisconnect = &protobufs.AgentDisconnect{} }),
	} {
		f.Add(frameOf(f, m))
	}
	for _, c := range unreadable {
		f.Add(append([]byte{0}, c.data...))
	}
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, frame []byte) {
		fleet := &fakeFleet{reply: func(*Report) Reply {
			return Reply{Offer: &Offer{RemoteConfig: config(), Packages: packages(), Components: true}}
		}}
		s := New(fleet, slog.New(slog.DiscardHandler), Options{Capabilities: everything})
		c := &conn{srv: s}
		c.source = source{conn: c}
		c.room.L = &c.mu
		frames, readable := c.handle(frame)
		require.Len(t, frames, 1)
		var m protobufs.ServerToAgent
		require.Zero(t, frames[0][0])
		require.NoError(t, proto.Unmarshal(frames[0][1:], &m))
		require.Equal(t, readable, m.ErrorResponse == nil)
		if m.ErrorResponse != nil {
			requireBadRequest(t, &m)
			require.Empty(t, fleet.reports)
		}
		require.NoError(t, s.Shutdown(context.Background()))
	})
}
