package agent

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// newTestSession is a session that is not connected: its loop is the test.
func newTestSession(t testing.TB) *Session {
	t.Helper()
	s, err := Open(Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}, Settings{})
	require.NoError(t, err)
	s.SetCapabilities(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand)
	s.report.lacking = 0
	return s
}

// snapshot is all that a message of the server may change.
type snapshot struct {
	uid       uuid.UUID
	lacking   part
	server    protobufs.ServerCapabilities
	heartbeat time.Duration
	dropped   int64
	restarts  int
}

func (s *Session) snapshot(restarts int) snapshot {
	return snapshot{s.identity.uid, s.report.lacking, s.report.server, s.heartbeat, s.Custom.Dropped(), restarts}
}

func frame(t testing.TB, m *protobufs.ServerToAgent) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	require.NoError(t, err)
	return append([]byte{0}, data...)
}

// FuzzReceive: no frame of a server panics, and one that is malformed, or for somebody else, changes nothing.
func FuzzReceive(f *testing.F) {
	uid := uuid.Must(uuid.NewV7())
	for _, m := range []*protobufs.ServerToAgent{
		{},
		{Flags: 3, Capabilities: 7},
		{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: uid[:]}},
		{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: []byte("short")}},
		{InstanceUid: uid[:], Flags: 1},
		{Command: &protobufs.ServerToAgentCommand{}, Flags: 1},
		{ErrorResponse: &protobufs.ServerErrorResponse{Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable}, Flags: 1},
		{CustomMessage: &protobufs.CustomMessage{Capability: "x"}},
		{ConnectionSettings: &protobufs.ConnectionSettingsOffers{Opamp: &protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: 7}}},
	} {
		f.Add(frame(f, m))
	}
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3})
	f.Add([]byte{0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, restarts := newTestSession(t), 0
		s.restart = func() { restarts++ }
		before := s.snapshot(restarts)
		m, err := decodeFrame(data)
		if err != nil {
			require.ErrorIs(t, err, errMalformed)
			require.Nil(t, m)
			return
		}
		err = s.receive(m)
		if len(m.InstanceUid) != 0 && uuid.UUID(m.InstanceUid) != before.uid || m.ErrorResponse != nil {
			require.Equal(t, before, s.snapshot(restarts), "%v", m)
		}
		if err != nil {
			var unavailable *unavailableError
			require.ErrorAs(t, err, &unavailable)
			require.LessOrEqual(t, unavailable.retryAfter, maxRetryAfter)
		}
		require.NotEqual(t, uuid.Nil, s.identity.uid)
		require.LessOrEqual(t, s.heartbeat, maxRetryAfter)
	})
}

// The seeds of FuzzReceive reach what the property is about.
func TestReceiveActs(t *testing.T) {
	t.Parallel()
	uid := uuid.Must(uuid.NewV7())
	for name, tc := range map[string]struct {
		message *protobufs.ServerToAgent
		check   func(t *testing.T, s *Session, restarts int, err error)
	}{
		"new UID": {
			&protobufs.ServerToAgent{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: uid[:]}},
			func(t *testing.T, s *Session, _ int, _ error) { require.Equal(t, uid, s.InstanceUID()) },
		},
		"full state": {&protobufs.ServerToAgent{Flags: 1}, func(t *testing.T, s *Session, _ int, _ error) {
			require.Equal(t, allParts, s.report.lacking)
		}},
		"restart stands alone": {&protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{}, Flags: 1}, func(t *testing.T, s *Session, restarts int, _ error) {
			require.Equal(t, 1, restarts)
			require.Zero(t, s.report.lacking)
		}},
		"unavailable": {
			&protobufs.ServerToAgent{ErrorResponse: &protobufs.ServerErrorResponse{
				Type: protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable,
				Details: &protobufs.ServerErrorResponse_RetryInfo{
					RetryInfo: &protobufs.RetryInfo{RetryAfterNanoseconds: 1 << 63},
				},
			}},
			func(t *testing.T, _ *Session, _ int, err error) { require.Equal(t, maxRetryAfter, retryAfter(err)) },
		},
		"unknown custom message": {
			&protobufs.ServerToAgent{CustomMessage: &protobufs.CustomMessage{Capability: "x"}},
			func(t *testing.T, s *Session, _ int, _ error) { require.EqualValues(t, 1, s.Custom.Dropped()) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, restarts := newTestSession(t), 0
			s.restart = func() { restarts++ }
			m, err := decodeFrame(frame(t, tc.message))
			require.NoError(t, err)
			err = s.receive(m)
			tc.check(t, s, restarts, err)
		})
	}
}
