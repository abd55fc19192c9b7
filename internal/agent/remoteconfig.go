package agent

import (
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
)

// OnRemoteConfig says who takes configurations of the server. The function must not block. It is called only while the
// agent announces that it accepts remote configuration.
func (s *Session) OnRemoteConfig(take func(hash []byte, files map[string]*protobufs.AgentConfigFile)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remoteConfig = take
}

// SetRemoteConfigStatus: see SetDescription. nil is a status that was never known.
func (s *Session) SetRemoteConfigStatus(status *protobufs.RemoteConfigStatus) {
	set(s.report, partRemoteConfigStatus, &s.report.remoteConfig, status)
}

// receiveRemoteConfig hands a configuration on. One without a hash could never be reported on, and one without a map says
// nothing: an empty map is a configuration.
func (s *Session) receiveRemoteConfig(offer *protobufs.AgentRemoteConfig) {
	if s.report.announced()&protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig == 0 {
		return
	}
	if len(offer.ConfigHash) == 0 || offer.Config == nil {
		s.logger().Warn("Ignored a remote configuration without a hash or without a map of files.", zap.Binary("hash", offer.ConfigHash))
		return
	}
	s.mu.Lock()
	take := s.remoteConfig
	s.mu.Unlock()
	take(offer.ConfigHash, offer.Config.ConfigMap)
}
