package api

import (
	"context"
	"errors"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

// The errors of Control that become answers of their own; store.ErrNotFound, store.ErrConflict, store.ErrInvalid and
// fleet.ErrRolloutState are the others.
var (
	// ErrCapability: the agent lacks what it would take. 409.
	ErrCapability = errors.New("the agent lacks a capability")
	// ErrAway: the agent is not connected. 409.
	ErrAway = errors.New("the agent is not connected")
	// ErrConnected: it can be done only while the agent is away. 409.
	ErrConnected = errors.New("the agent is connected, and would be there again at once: stop it first")
	// ErrNoTokens: this server runs without tokens. 409.
	ErrNoTokens = errors.New("this server runs without tokens (--dev), so that agents have no credentials")
	// ErrBusy: try again later. 503.
	ErrBusy = errors.New("busy")
)

// Control is what steers the fleet. Its methods return after what they changed is stored, with the event of it; actor is who
// caused it: a token's id, or dev. What can be read only is read from the store.
type Control interface {
	// Restart asks an agent to restart. store.ErrNotFound, ErrAway, ErrCapability.
	Restart(ctx context.Context, actor, uid string) error
	// Forget deletes an agent that is away. store.ErrNotFound; ErrConnected.
	Forget(ctx context.Context, actor, uid string) error
	// Desired is what an agent should run now. store.ErrNotFound.
	Desired(ctx context.Context, uid string) (fleet.DesiredSet, error)

	// Components are what an agent's binary contains. store.ErrNotFound if it has not said.
	Components(ctx context.Context, uid string) (apiv1.Components, error)

	// SaveConfiguration appends a version, as store.SaveVersion does. Nothing reaches an agent by it.
	SaveConfiguration(ctx context.Context, actor string, v fleet.Version, expected int) (fleet.Version, error)
	// DeleteConfiguration deletes it and takes it from the agents that have it. store.ErrConflict while a rollout of it is unfinished.
	DeleteConfiguration(ctx context.Context, actor, name string) error

	// Plan asks the agents that a candidate concerns, and returns at once. GetPlan tells how far it is. Plans are kept for an hour, in
	// memory. store.ErrNotFound, store.ErrInvalid, ErrBusy.
	Plan(ctx context.Context, actor string, r apiv1.PlanRequest) (apiv1.Plan, error)
	GetPlan(ctx context.Context, id string) (apiv1.Plan, error)
	// PlanDone is closed when the plan has ended, at once if there is none.
	PlanDone(id string) <-chan struct{}

	// StartRollout begins to bring a version to the agents; version 0 is the newest. store.ErrNotFound, store.ErrConflict if one of the
	// configuration is unfinished, store.ErrInvalid.
	StartRollout(ctx context.Context, actor, configuration string, version int, spec fleet.RolloutSpec) (*fleet.Rollout, error)
	// PauseRollout, ResumeRollout and AbortRollout return it as it is then. store.ErrNotFound, fleet.ErrRolloutState.
	PauseRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error)
	ResumeRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error)
	AbortRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error)

	// Connections are the offers of connection settings, by name, secrets included. SaveConnection replaces one or makes it;
	// "[redacted]" in place of a secret keeps the one that is stored.
	Connections(ctx context.Context) ([]apiv1.Connection, error)
	SaveConnection(ctx context.Context, actor string, c apiv1.Connection) error
	DeleteConnection(ctx context.Context, actor, name string) error
	// RotateCredential gives an agent a new credential of its own through its connection settings. store.ErrNotFound, ErrAway,
	// ErrCapability, ErrNoTokens.
	RotateCredential(ctx context.Context, actor, uid string) error

	// Packages are the executables that can be offered, and the offers, by name.
	Packages(ctx context.Context) (apiv1.Packages, error)
	SavePackageOffer(ctx context.Context, actor string, o apiv1.PackageOffer) error
	DeletePackageOffer(ctx context.Context, actor, name string) error

	// Throughput is an agent's own metrics of the last hour. store.ErrNotFound if it sends none.
	Throughput(ctx context.Context, uid string) (apiv1.Series, error)
}
