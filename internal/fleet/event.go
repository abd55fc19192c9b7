package fleet

import "time"

// Event is an entry of the timeline: who did what, and what came of it.
type Event struct {
	// ID orders events; the store gives it.
	ID   int64     `json:"id"`
	Time time.Time `json:"time"`
	// Actor is who caused it: a token's id, an agent's uid, or ActorServer.
	Actor string `json:"actor,omitempty"`
	Kind  Kind   `json:"kind"`
	// Agent, Configuration, Version and Rollout are what it is about; those that do not apply are empty.
	Agent         string `json:"agent,omitempty"`
	Configuration string `json:"configuration,omitempty"`
	Version       int    `json:"version,omitempty"`
	Rollout       string `json:"rollout,omitempty"`
	// Hash names the set of files it is about.
	Hash    string `json:"hash,omitempty"`
	Message string `json:"message,omitempty"`
}

// ActorServer is the actor of what the control plane does by itself.
const ActorServer = "server"

// Kind says what happened.
type Kind string

// The kinds. Rollouts make those that begin with rollout; the others are made where they happen.
const (
	AgentConnected    Kind = "connected"
	AgentDisconnected Kind = "disconnected"
	AgentOffered      Kind = "offered"
	AgentApplying     Kind = "applying"
	AgentApplied      Kind = "applied"
	AgentFailed       Kind = "failed"
	AgentUnhealthy    Kind = "unhealthy"
	AgentHealthy      Kind = "healthy"
	AgentRestarted    Kind = "restart_requested"
	AgentForgotten    Kind = "forgotten"
	AgentDuplicate    Kind = "duplicate_uid"   // another agent came under its UID, and was given one of its own
	AgentWithheld     Kind = "offer_withheld"  // the desired set would delete what it does not name
	AgentContended    Kind = "enrolled_again"  // it has a credential of its own, and somebody came with an enrolment token in its name
	EventsLeftOut     Kind = "events_left_out" // it made more than are kept

	ConnectionsOffered  Kind = "connection_settings_offered"
	ConnectionsApplied  Kind = "connection_settings_applied"
	ConnectionsFailed   Kind = "connection_settings_failed"
	CredentialIssued    Kind = "credential_issued"
	CertificateIssued   Kind = "certificate_issued"
	PackageOffered      Kind = "package_offered"
	PackageInstalled    Kind = "package_installed"
	PackageFailed       Kind = "package_failed"
	ConnectionSaved     Kind = "connection_saved"
	ConnectionDeleted   Kind = "connection_deleted"
	PackageOfferSaved   Kind = "package_offer_saved"
	PackageOfferDeleted Kind = "package_offer_deleted"

	ConfigurationSaved   Kind = "configuration_saved"
	ConfigurationDeleted Kind = "configuration_deleted"

	RolloutCreated    Kind = "rollout_created"
	RolloutStarted    Kind = "rollout_started"
	RolloutWave       Kind = "rollout_wave"
	RolloutAssigned   Kind = "rollout_assigned" // an agent is given the new version
	RolloutApplied    Kind = "rollout_applied"  // an agent runs it
	RolloutFailed     Kind = "rollout_failed"   // an agent counts against the budget
	RolloutReturned   Kind = "rollout_returned" // an agent is given the previous version again
	RolloutPaused     Kind = "rollout_paused"
	RolloutResumed    Kind = "rollout_resumed"
	RolloutAborted    Kind = "rollout_aborted"
	RolloutRolledBack Kind = "rollout_rolled_back"
	RolloutSucceeded  Kind = "rollout_succeeded"

	TokenCreated Kind = "token_created"
	TokenRevoked Kind = "token_revoked"

	PlanRequested Kind = "plan_requested"
	ServerStarted Kind = "server_started"
	ServerStopped Kind = "server_stopped"
)
