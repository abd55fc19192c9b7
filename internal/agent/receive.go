package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// errMalformed is what the server sent and nobody can read. It changes nothing.
var errMalformed = errors.New("malformed message from the server")

// unavailableError is the server's wish to be left alone (spec "Throttling").
type unavailableError struct {
	message    string
	retryAfter time.Duration // 0: the server did not say
}

func (e *unavailableError) Error() string { return "the server is unavailable: " + e.message }

// decodeFrame decodes a WebSocket message: a varint header of value 0, then a ServerToAgent
// (spec "WebSocket Message Format").
func decodeFrame(frame []byte) (*protobufs.ServerToAgent, error) {
	header, n := protowire.ConsumeVarint(frame)
	if n < 0 || header != 0 {
		return nil, fmt.Errorf("%w: header is not 0", errMalformed)
	}
	return decodeMessage(frame[n:])
}

// decodeMessage decodes a ServerToAgent and checks what must hold for every one of them.
func decodeMessage(data []byte) (*protobufs.ServerToAgent, error) {
	var m protobufs.ServerToAgent
	if err := proto.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if n := len(m.InstanceUid); n != 0 && n != len(uuid.UUID{}) {
		return nil, fmt.Errorf("%w: instance_uid has %d bytes", errMalformed, n)
	}
	if id := m.AgentIdentification; id != nil && len(id.NewInstanceUid) != 0 {
		if uid, err := uuid.FromBytes(id.NewInstanceUid); err != nil || uid == uuid.Nil {
			return nil, fmt.Errorf("%w: new_instance_uid is not a UUID", errMalformed)
		}
	}
	return &m, nil
}

// receive acts on a message. It returns an *unavailableError when the connection must be left; all else is done here.
func (s *Session) receive(m *protobufs.ServerToAgent) error {
	if len(m.InstanceUid) != 0 && uuid.UUID(m.InstanceUid) != s.identity.uid {
		s.logger().Debug("Ignored a message for another instance.", zap.Binary("instance_uid", m.InstanceUid))
		return nil
	}
	if e := m.ErrorResponse; e != nil {
		return s.receiveError(e) // nothing else is valid beside it
	}
	if m.Capabilities != 0 {
		s.report.setServerCapabilities(protobufs.ServerCapabilities(m.Capabilities))
	}
	// A command is alone: all other fields of its message are ignored (spec "ServerToAgentCommand").
	if m.Command != nil {
		if m.Command.Type == protobufs.CommandType_CommandType_Restart && s.report.announced()&protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand != 0 {
			s.logger().Info("The server asks for a restart.")
			s.onRestart()
		}
		return nil
	}
	if id := m.AgentIdentification; id != nil && len(id.NewInstanceUid) != 0 {
		s.changeIdentity(uuid.UUID(id.NewInstanceUid))
	}
	if m.ConnectionSettings != nil {
		s.receiveConnectionSettings(m.ConnectionSettings)
	}
	if m.PackagesAvailable != nil {
		s.receivePackages(m.PackagesAvailable)
	}
	if m.RemoteConfig != nil {
		s.receiveRemoteConfig(m.RemoteConfig)
	}
	if m.CustomMessage != nil {
		s.Custom.deliver(m.CustomMessage)
	}
	if m.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents) != 0 {
		s.report.lack(partComponents | partComponentDetails)
	}
	if m.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0 {
		s.report.lack(allParts)
	}
	return nil
}

func (s *Session) receiveError(e *protobufs.ServerErrorResponse) error {
	if e.Type == protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable {
		after := e.GetRetryInfo().GetRetryAfterNanoseconds()
		return &unavailableError{message: printable(e.ErrorMessage), retryAfter: time.Duration(min(after, uint64(maxRetryAfter)))}
	}
	// The message is not repeated (spec "ServerErrorResponse"); said once, until something gets through again.
	s.say(stateRefused, "The server refuses what this agent reports.", zap.Stringer("type", e.Type), zap.String("message", printable(e.ErrorMessage)))
	return nil
}

func (s *Session) changeIdentity(uid uuid.UUID) {
	if uid == s.identity.uid {
		return
	}
	s.logger().Info("The server gave this agent a new instance UID.", zap.Stringer("old", s.identity.uid), zap.Stringer("new", uid))
	if err := s.identity.assign(uid); err != nil {
		s.logger().Warn("The new instance UID cannot be stored: it holds until this process ends.", zap.Error(err))
	}
	s.publishIdentity()
	s.report.lack(allParts)
}

// printable keeps a server's text short and on one line.
func printable(text string) string {
	const most = 256
	runes := []rune(text)
	if len(runes) > most {
		runes = append(runes[:most], '…')
	}
	for i, r := range runes {
		if r < ' ' {
			runes[i] = ' '
		}
	}
	return string(runes)
}
