package agent

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// newTestSession is a session that is not connected: its loop is the test.
func newTestSession(t testing.TB) *Session {
	t.Helper()
	s, err := Open(Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}, Settings{})
	require.NoError(t, err)
	s.SetCapabilities(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand | acceptsOpAMP)
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
		{ConnectionSettings: &protobufs.ConnectionSettingsOffers{Hash: []byte("h"), Opamp: &protobufs.OpAMPConnectionSettings{
			DestinationEndpoint: "wss://127.0.0.1/", Headers: &protobufs.Headers{Headers: []*protobufs.Header{{Key: "A", Value: "b"}, nil}},
			Certificate: &protobufs.TLSCertificate{Cert: []byte("c")}, Tls: &protobufs.TLSConnectionSettings{CaPemContents: "ca"},
			Proxy: &protobufs.ProxyConnectionSettings{Url: "127.0.0.1:1"},
		}}},
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

// loud is a message in which everything asks for a change.
func loud() *protobufs.ServerToAgent {
	return &protobufs.ServerToAgent{
		Flags: 3, Capabilities: uint64(takesConfig),
		AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: uidB[:]},
		ConnectionSettings:  offer(7),
		CustomMessage:       &protobufs.CustomMessage{Capability: "org.example"},
	}
}

func offer(seconds uint64) *protobufs.ConnectionSettingsOffers {
	return &protobufs.ConnectionSettingsOffers{Opamp: &protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: seconds}}
}

// TestReceiveChanges checks all that a message may change: what want leaves as it was must not move.
func TestReceiveChanges(t *testing.T) {
	t.Parallel()
	const before = 5 * time.Second // heartbeat of an earlier offer
	restart := &protobufs.ServerToAgentCommand{Type: protobufs.CommandType_CommandType_Restart}
	for name, tt := range map[string]struct {
		edit        func(s *Session, m *protobufs.ServerToAgent)
		quiet       bool // start from an empty message, not from a loud one
		incapable   bool // the agent does not take restarts
		want        func(w *snapshot)
		unavailable bool
		retryAfter  time.Duration
	}{
		"nothing": {quiet: true},
		"all at once": {want: func(w *snapshot) {
			*w = snapshot{uidB, allParts | partComponentDetails, takesConfig, 7 * time.Second, 1, 0}
		}},
		"own uid":     {quiet: true, edit: func(s *Session, m *protobufs.ServerToAgent) { m.InstanceUid, m.Flags = s.identity.uid[:], 1 }, want: func(w *snapshot) { w.lacking = allParts }},
		"foreign uid": {edit: func(_ *Session, m *protobufs.ServerToAgent) { m.InstanceUid = uidC[:] }},
		"same new uid": {quiet: true, edit: func(s *Session, m *protobufs.ServerToAgent) {
			m.AgentIdentification = &protobufs.AgentIdentification{NewInstanceUid: s.identity.uid[:]}
		}},
		"no new uid": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.AgentIdentification = &protobufs.AgentIdentification{} }},
		"new uid": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) {
			m.AgentIdentification = &protobufs.AgentIdentification{NewInstanceUid: uidB[:]}
		}, want: func(w *snapshot) { w.uid, w.lacking = uidB, allParts }},
		"full state":    {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Flags = 1 }, want: func(w *snapshot) { w.lacking = allParts }},
		"components":    {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Flags = 2 }, want: func(w *snapshot) { w.lacking = partComponents | partComponentDetails }},
		"unknown flags": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Flags = ^uint64(3) }},
		"unknown field": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) {
			m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 1))
		}},
		"server capabilities": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Capabilities = uint64(takesStatus) }, want: func(w *snapshot) { w.server = takesStatus }},
		"bad request": {edit: func(_ *Session, m *protobufs.ServerToAgent) {
			m.ErrorResponse = refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, 0)
		}},
		"unknown error": {edit: func(_ *Session, m *protobufs.ServerToAgent) { m.ErrorResponse = refusal(77, 0) }},
		"unavailable": {
			edit: func(_ *Session, m *protobufs.ServerToAgent) {
				m.ErrorResponse = refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, 0)
			},
			unavailable: true,
		},
		"unavailable for a while": {
			edit: func(_ *Session, m *protobufs.ServerToAgent) {
				m.ErrorResponse = refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, 90*time.Second)
			},
			unavailable: true, retryAfter: 90 * time.Second,
		},
		"unavailable for ever": {
			edit: func(_ *Session, m *protobufs.ServerToAgent) {
				m.ErrorResponse = refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, 1<<63-1)
			},
			unavailable: true, retryAfter: maxRetryAfter,
		},
		"command, alone even when it is not": {
			edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Command = restart },
			want: func(w *snapshot) { w.restarts, w.server = 1, takesConfig },
		},
		"command without the capability": {
			edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Command = restart }, incapable: true,
			want: func(w *snapshot) { w.server = takesConfig },
		},
		"unknown command": {
			edit: func(_ *Session, m *protobufs.ServerToAgent) { m.Command = &protobufs.ServerToAgentCommand{Type: 9} },
			want: func(w *snapshot) { w.server = takesConfig },
		},
		"command beside an error": {edit: func(_ *Session, m *protobufs.ServerToAgent) {
			m.Command, m.ErrorResponse = restart, refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, 0)
		}},
		"heartbeat":           {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.ConnectionSettings = offer(7) }, want: func(w *snapshot) { w.heartbeat = 7 * time.Second }},
		"heartbeat 0 keeps":   {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.ConnectionSettings = offer(0) }},
		"heartbeat of an age": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.ConnectionSettings = offer(1<<64 - 1) }, want: func(w *snapshot) { w.heartbeat = maxRetryAfter }},
		"offer without OpAMP": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) {
			m.ConnectionSettings = &protobufs.ConnectionSettingsOffers{}
		}},
		"custom message dropped": {quiet: true, edit: func(_ *Session, m *protobufs.ServerToAgent) { m.CustomMessage = &protobufs.CustomMessage{} }, want: func(w *snapshot) { w.dropped = 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, restarts := newTestSession(t), 0
			s.restart = func() { restarts++ }
			s.setHeartbeat(before)
			if tt.incapable {
				s.SetCapabilities(0)
				s.report.lacking = 0
			}
			m := loud()
			if tt.quiet {
				m = &protobufs.ServerToAgent{}
			}
			if tt.edit != nil {
				tt.edit(s, m)
			}
			want := s.snapshot(0)
			if tt.want != nil {
				tt.want(&want)
			}
			decoded, err := decodeFrame(frame(t, m))
			require.NoError(t, err)
			err = s.receive(decoded)
			require.Equal(t, want, s.snapshot(restarts))
			require.Equal(t, want.uid, s.InstanceUID())
			require.Equal(t, want.uid, loaded(t, s.identity.directory, uuid.Nil).uid, "kept for the next start")
			require.Equal(t, tt.retryAfter, retryAfter(err))
			if !tt.unavailable {
				require.NoError(t, err)
				return
			}
			var unavailable *unavailableError
			require.ErrorAs(t, err, &unavailable)
		})
	}
}

func refusal(kind protobufs.ServerErrorResponseType, after time.Duration) *protobufs.ServerErrorResponse {
	e := &protobufs.ServerErrorResponse{Type: kind, ErrorMessage: "no\nthanks"}
	if after > 0 {
		e.Details = &protobufs.ServerErrorResponse_RetryInfo{RetryInfo: &protobufs.RetryInfo{RetryAfterNanoseconds: uint64(after)}}
	}
	return e
}

func TestDecodeFrameRejects(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"empty":            {},
		"other header":     append([]byte{1}, frame(t, loud())[1:]...),
		"long header":      {0x80, 0x01},
		"endless header":   {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"torn":             frame(t, loud())[:20],
		"text":             []byte("\x00hello"),
		"short uid":        frame(t, &protobufs.ServerToAgent{InstanceUid: []byte("short")}),
		"long uid":         frame(t, &protobufs.ServerToAgent{InstanceUid: make([]byte, 17)}),
		"short new uid":    frame(t, &protobufs.ServerToAgent{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: []byte{1}}}),
		"new uid all zero": frame(t, &protobufs.ServerToAgent{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: make([]byte, 16)}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := decodeFrame(data)
			require.ErrorIs(t, err, errMalformed)
			require.Nil(t, m)
		})
	}
	m, err := decodeFrame([]byte{0})
	require.NoError(t, err, "no data is an empty message")
	require.NotNil(t, m)
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a b c", printable("a\nb\x1bc"))
	long := make([]rune, 1000)
	for i := range long {
		long[i] = 'ü'
	}
	require.Len(t, []rune(printable(string(long))), 257)
}
