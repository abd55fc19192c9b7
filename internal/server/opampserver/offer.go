package opampserver

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
)

// What Push and Fleet.Dropped say. A *CapabilityError is the third kind.
var (
	// ErrUnknownAgent: nothing is remembered of that agent.
	ErrUnknownAgent = errors.New("unknown agent")
	// ErrOffline: the agent is not connected, or left before it fetched the offer.
	ErrOffline = errors.New("agent is offline")
	// ErrBusy: too much waits for the agent already. Offer again later.
	ErrBusy = errors.New("too much waits for the agent")
	// ErrTooLarge: the message would be larger than the limit.
	ErrTooLarge = errors.New("message is too large")
	// ErrInvalidOffer: the offer breaks the protocol, whoever takes it.
	ErrInvalidOffer = errors.New("invalid offer")
)

// CapabilityError says what an agent, or this server, cannot do.
type CapabilityError struct {
	// Part of the offer, such as "remote_config".
	Part string
	// Missing names the capability.
	Missing string
	// Server: it is the server that lacks it.
	Server bool
}

func (e *CapabilityError) Error() string {
	who := "agent"
	if e.Server {
		who = "server"
	}
	return fmt.Sprintf("%s: the %s lacks %s", e.Part, who, e.Missing)
}

// Offer is what the owner wants an agent to have. All parts are optional. Hashes must be set.
type Offer struct {
	RemoteConfig *protobufs.AgentRemoteConfig
	// ConnectionSettings goes out as a whole or not at all, since its hash covers every part. An OpAMP offer without a
	// heartbeat interval turns heartbeats off.
	ConnectionSettings *protobufs.ConnectionSettingsOffers
	Packages           *protobufs.PackagesAvailable
	CustomMessage      *protobufs.CustomMessage
	// Restart is sent alone, after the other parts (spec "ServerToAgentCommand").
	Restart bool
	// FullState and Components ask for a full report, and for the details of the components.
	FullState, Components bool
	// NewUID, unless zero, is the agent's UID from now on.
	NewUID uuid.UUID
}

// terms are what decides whether an offer may go out.
type terms struct {
	agent        uint64
	agentCustom  []string
	server       uint64
	serverCustom []string
}

func (t terms) need(part string, agent protobufs.AgentCapabilities, server protobufs.ServerCapabilities) error {
	if server != 0 && t.server&uint64(server) == 0 {
		return &CapabilityError{Part: part, Missing: server.String(), Server: true}
	}
	if t.agent&uint64(agent) == 0 {
		return &CapabilityError{Part: part, Missing: agent.String()}
	}
	return nil
}

// without returns the offer less the parts that may not go out, and why they may not.
func (o *Offer) without(t terms) (Offer, error) {
	out := *o
	var errs []error
	drop := func(err error, clear func()) {
		if err != nil {
			errs = append(errs, err)
			clear()
		}
	}
	if o.RemoteConfig != nil {
		drop(t.remoteConfig(o.RemoteConfig), func() { out.RemoteConfig = nil })
	}
	if o.ConnectionSettings != nil {
		drop(t.connectionSettings(o.ConnectionSettings), func() { out.ConnectionSettings = nil })
	}
	if o.Packages != nil {
		drop(t.packages(o.Packages), func() { out.Packages = nil })
	}
	if o.CustomMessage != nil {
		drop(t.customMessage(o.CustomMessage), func() { out.CustomMessage = nil })
	}
	if o.Restart {
		drop(t.need("command", protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand, 0), func() { out.Restart = false })
	}
	if o.Components {
		drop(t.need("components", protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents, 0), func() { out.Components = false })
	}
	return out, errors.Join(errs...)
}

func (t terms) remoteConfig(c *protobufs.AgentRemoteConfig) error {
	if len(c.ConfigHash) == 0 {
		return fmt.Errorf("remote_config: %w: no config_hash", ErrInvalidOffer)
	}
	return t.need("remote_config", protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig, protobufs.ServerCapabilities_ServerCapabilities_OffersRemoteConfig)
}

func (t terms) packages(p *protobufs.PackagesAvailable) error {
	if len(p.AllPackagesHash) == 0 {
		return fmt.Errorf("packages_available: %w: no all_packages_hash", ErrInvalidOffer)
	}
	return t.need("packages_available", protobufs.AgentCapabilities_AgentCapabilities_AcceptsPackages, protobufs.ServerCapabilities_ServerCapabilities_OffersPackages)
}

func (t terms) connectionSettings(c *protobufs.ConnectionSettingsOffers) error {
	if len(c.Hash) == 0 {
		return fmt.Errorf("connection_settings: %w: no hash", ErrInvalidOffer)
	}
	if c.Opamp != nil && c.Opamp.DestinationEndpoint == "" {
		return fmt.Errorf("connection_settings.opamp: %w: no destination_endpoint", ErrInvalidOffer)
	}
	for _, class := range []struct {
		name  string
		set   bool
		needs protobufs.AgentCapabilities
	}{
		{"opamp", c.Opamp != nil, protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings},
		{"own_metrics", c.OwnMetrics != nil, protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnMetrics},
		{"own_traces", c.OwnTraces != nil, protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnTraces},
		{"own_logs", c.OwnLogs != nil, protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnLogs},
		{"other_connections", len(c.OtherConnections) > 0, protobufs.AgentCapabilities_AgentCapabilities_AcceptsOtherConnectionSettings},
	} {
		if !class.set {
			continue
		}
		if err := t.need("connection_settings."+class.name, class.needs, protobufs.ServerCapabilities_ServerCapabilities_OffersConnectionSettings); err != nil {
			return err
		}
	}
	return nil
}

func (t terms) customMessage(m *protobufs.CustomMessage) error {
	if !slices.Contains(t.serverCustom, m.Capability) {
		return &CapabilityError{Part: "custom_message", Missing: m.Capability, Server: true}
	}
	if !slices.Contains(t.agentCustom, m.Capability) {
		return &CapabilityError{Part: "custom_message", Missing: m.Capability}
	}
	return nil
}

// over lays an offer over an older one that was not sent yet.
func (o *Offer) over(older Offer) Offer {
	out := older
	if o.RemoteConfig != nil {
		out.RemoteConfig = o.RemoteConfig
	}
	if o.ConnectionSettings != nil {
		out.ConnectionSettings = o.ConnectionSettings
	}
	if o.Packages != nil {
		out.Packages = o.Packages
	}
	if o.CustomMessage != nil {
		out.CustomMessage = o.CustomMessage
	}
	out.Restart = out.Restart || o.Restart
	out.FullState = out.FullState || o.FullState
	out.Components = out.Components || o.Components
	if o.NewUID != uuid.Nil {
		out.NewUID = o.NewUID
	}
	return out
}

// into fills a message with everything but the command, which is alone.
func (o *Offer) into(m *protobufs.ServerToAgent) {
	m.RemoteConfig, m.ConnectionSettings, m.PackagesAvailable, m.CustomMessage = o.RemoteConfig, o.ConnectionSettings, o.Packages, o.CustomMessage
	if o.FullState {
		m.Flags |= uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	}
	if o.Components {
		m.Flags |= uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)
	}
	if o.NewUID != uuid.Nil {
		m.AgentIdentification = &protobufs.AgentIdentification{NewInstanceUid: o.NewUID[:]}
	}
}

func (o *Offer) onlyRestart() bool {
	return o.Restart && o.RemoteConfig == nil && o.ConnectionSettings == nil && o.Packages == nil && o.CustomMessage == nil &&
		!o.FullState && !o.Components && o.NewUID == uuid.Nil
}
