package agent

import (
	"github.com/open-telemetry/opamp-go/protobufs"
)

// Companion is something that lives as long as a session, and not as long as one run of the Collector.
type Companion interface{ Close() }

// Companion returns the session's companion of that key, which it opens the first time. With another key the old one is
// closed first. It ends with the session.
func (s *Session) Companion(key string, open func() (Companion, error)) (Companion, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.companion != nil && s.companionKey == key {
		return s.companion, nil
	}
	s.closeCompanion()
	opened, err := open()
	if err == nil {
		s.companion, s.companionKey = opened, key
	}
	return opened, err
}

// closeCompanion ends the companion, if there is one. The caller holds mu.
func (s *Session) closeCompanion() {
	if s.companion != nil {
		s.companion.Close()
		s.companion = nil
	}
}

// OnPackages says who takes offers of packages. The function must not block.
func (s *Session) OnPackages(take func(*protobufs.PackagesAvailable)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packages = take
}

// SetPackageStatuses: see SetDescription.
func (s *Session) SetPackageStatuses(statuses *protobufs.PackageStatuses) {
	set(s.report, partPackageStatuses, &s.report.packages, statuses)
}

// receivePackages hands an offer on; one without a hash could never be reported on (spec "PackagesAvailable").
func (s *Session) receivePackages(offer *protobufs.PackagesAvailable) {
	if s.report.announced()&protobufs.AgentCapabilities_AgentCapabilities_AcceptsPackages == 0 {
		return
	}
	if len(offer.AllPackagesHash) == 0 {
		s.logger().Warn("Ignored an offer of packages without a hash.")
		return
	}
	s.mu.Lock()
	take := s.packages
	s.mu.Unlock()
	take(offer)
}
