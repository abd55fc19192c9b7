// Package store is what the control plane remembers, as an interface: agents, effective configurations, versions, rollouts,
// events, tokens, and a sequence of changes that others poll. Package sqlite implements it, and storetest is the contract that
// every implementation passes. What an agent, a version or a rollout means is decided in package fleet; nothing is here.
// DESIGN.md says what is written when.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
)

// The errors that callers decide on; all others are the database's.
var (
	// ErrNotFound: there is no such thing.
	ErrNotFound = errors.New("not found")
	// ErrConflict: somebody else was faster, or what is there forbids it.
	ErrConflict = errors.New("conflict")
	// ErrUnfinished is an ErrConflict: a rollout of this configuration goes on.
	ErrUnfinished error = unfinished{}
	// ErrInvalid: the input can never be stored.
	ErrInvalid = errors.New("invalid")
)

type unfinished struct{}

func (unfinished) Error() string { return "not finished" }
func (unfinished) Unwrap() error { return ErrConflict }

// Store keeps what the control plane knows. It is safe for concurrent use. A method that writes returns after the write is on
// disk, in one transaction with the events passed along: either all of it is there after a crash, or nothing.
//
// Texts are kept byte for byte, NUL included, and must be UTF-8, else ErrInvalid; bodies are any bytes. Times are kept to the
// nanosecond and come back in UTC. No text that comes in ever becomes part of a statement.
type Store interface {
	Agents
	Configurations
	Rollouts
	Events
	Tokens
	Documents

	// Revision is the number of the last change. It increases with each write of an agent, a configuration, or a rollout.
	Revision(ctx context.Context) (int64, error)
	// Changes are the things that changed after revision since, in the order of their last change, each thing once; limit at
	// most, and at most 10,000. Polling it with the last revision seen misses nothing.
	Changes(ctx context.Context, since int64, limit int) ([]Change, error)
	// Prune deletes what is older than its retention, and bodies that no agent refers to.
	Prune(ctx context.Context, keep Retention) (Pruned, error)
	// Close waits for writes under way. It may be called twice.
	Close() error
}

// Agents are the inventory.
type Agents interface {
	// SaveAgents inserts or replaces agents. FirstSeen stays as it was stored first, and a later LastSeen stays too.
	SaveAgents(ctx context.Context, batch AgentBatch) error
	// TouchAgents moves LastSeen of known agents forward, and changes nothing else: no revision, no state. It is what heartbeats
	// come to, many at a time.
	TouchAgents(ctx context.Context, seen map[string]time.Time) error
	// Agent returns one, or ErrNotFound.
	Agent(ctx context.Context, uid string) (fleet.Agent, error)
	// ListAgents returns those that the query describes, by UID.
	ListAgents(ctx context.Context, q AgentQuery) (AgentPage, error)
	// AllAgents returns every agent, by UID: for a server that starts. Those of them that are stored as connected are so no more;
	// to say so is SaveAgents, once for all of them.
	AllAgents(ctx context.Context) ([]fleet.Agent, error)
	// ForgetAgent deletes an agent; its events stay. ErrNotFound, and ErrConflict while it is connected.
	ForgetAgent(ctx context.Context, uid string, events ...fleet.Event) error
	// EffectiveConfig returns a body by its fleet.ContentHash, or ErrNotFound.
	EffectiveConfig(ctx context.Context, hash string) ([]byte, error)
}

// AgentBatch is one write of agents.
type AgentBatch struct {
	Agents []fleet.Agent
	// Bodies are effective configurations that the agents refer to. Those that are there already cost little.
	Bodies [][]byte
	Events []fleet.Event
}

// AgentQuery describes agents; all conditions hold.
type AgentQuery struct {
	Selector fleet.Selector
	// State is empty for any.
	State fleet.State
	// Text is contained in the UID, or in a key or value of an attribute, whatever the case.
	Text string
	// SeenSince leaves out agents that are not connected and were last seen before it; zero leaves out none.
	SeenSince time.Time
	// Limit is at most 1,000; zero is 100.
	Limit int
	// Cursor is AgentPage.Next of the page before. Agents that come and go between two pages move no other from one to the other.
	Cursor string
}

// AgentPage is a part of a list.
type AgentPage struct {
	Agents []fleet.Agent
	// Next is empty on the last page.
	Next string
	// Total counts all agents of the query.
	Total int
}

// Configurations are names with immutable versions.
type Configurations interface {
	// SaveVersion appends a version and returns it with its number and hash. The configuration is made with its first. Unless
	// expected is AnyVersion, the newest version must have that number, 0 for none, else ErrConflict.
	SaveVersion(ctx context.Context, v fleet.Version, expected int, events ...fleet.Event) (fleet.Version, error)
	// Configuration returns one, or ErrNotFound.
	Configuration(ctx context.Context, name string) (fleet.Configuration, error)
	// ListConfigurations returns all by name.
	ListConfigurations(ctx context.Context) ([]fleet.Configuration, error)
	// Version returns one with its body, or ErrNotFound.
	Version(ctx context.Context, name string, number int) (fleet.Version, error)
	// ListVersions returns all without bodies, the newest first; ErrNotFound without such a configuration.
	ListVersions(ctx context.Context, name string) ([]fleet.Version, error)
	// DeleteConfiguration deletes it with its versions. ErrUnfinished while a rollout of it is unfinished. Numbers go on after it if
	// the name comes again: a version is never two things.
	DeleteConfiguration(ctx context.Context, name string, events ...fleet.Event) error
}

// AnyVersion as the expected version saves in any case.
const AnyVersion = -1

// Rollouts are stored whole.
type Rollouts interface {
	// CreateRollout stores a new one and sets its Revision. ErrUnfinished if its configuration has another one, ErrConflict if it is no
	// longer as the rollout's From says, or the ID is taken; ErrNotFound if there is no such version.
	CreateRollout(ctx context.Context, r *fleet.Rollout, events ...fleet.Event) error
	// SaveRollout replaces one that is as it was when r was read, else ErrConflict, and sets r.Revision. A rollout that succeeded
	// makes its To the configuration's Released in the same transaction.
	SaveRollout(ctx context.Context, r *fleet.Rollout, events ...fleet.Event) error
	// Rollout returns one, or ErrNotFound.
	Rollout(ctx context.Context, id string) (*fleet.Rollout, error)
	// ListRollouts returns those of the query, the newest first.
	ListRollouts(ctx context.Context, q RolloutQuery) ([]*fleet.Rollout, error)
}

// RolloutQuery describes rollouts.
type RolloutQuery struct {
	// Configuration is empty for any.
	Configuration string
	// Unfinished leaves out those in a final state.
	Unfinished bool
	// Limit is at most 1,000; zero is 100.
	Limit int
}

// Events are the timeline and the audit.
type Events interface {
	// AppendEvents stores events in their order and gives them IDs, each greater than all before.
	AppendEvents(ctx context.Context, events ...fleet.Event) error
	// ListEvents returns those of the query, the newest first unless it says otherwise.
	ListEvents(ctx context.Context, q EventQuery) ([]fleet.Event, error)
}

// EventQuery describes events; all conditions hold, and empty ones always do.
type EventQuery struct {
	Agent, Configuration, Rollout string
	// Before is an ID, above zero: only older events. It is how to page.
	Before int64
	// After is an ID: only newer events. With OldestFirst it is how to follow.
	After       int64
	OldestFirst bool
	// Limit is at most 1,000; zero is 100.
	Limit int
}

// Tokens are kept as hashes.
type Tokens interface {
	// CreateToken stores a token. ErrConflict if its ID or hash is taken.
	CreateToken(ctx context.Context, t Token, events ...fleet.Event) error
	// UseToken finds a token by the hash of its secret, and counts a use of those that have a limit. ErrNotFound if it is unknown,
	// revoked, expired at now, or used up.
	UseToken(ctx context.Context, hash string, now time.Time) (Token, error)
	// ListTokens returns all, the oldest first.
	ListTokens(ctx context.Context) ([]Token, error)
	// RevokeToken deletes a token, or ErrNotFound.
	RevokeToken(ctx context.Context, id string, events ...fleet.Event) error
}

// Token is a credential without its secret.
type Token struct {
	ID   string `json:"id"`
	Role string `json:"role"`
	// Hash is a hash of the secret in hexadecimal digits. It identifies the token where the secret is presented.
	Hash string `json:"-"`
	// Agent is the UID it was issued for, empty for any.
	Agent string `json:"agent,omitempty"`
	// Uses is how often it may still be used; negative is without limit.
	Uses      int       `json:"uses"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is zero for never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Documents are small things of the server that nobody queries by their content: settings, layouts, filters. They are no part
// of Changes.
type Documents interface {
	// PutDocument inserts or replaces a document. ErrInvalid without kind or name, and above MaxDocument bytes.
	PutDocument(ctx context.Context, kind, name string, data []byte, events ...fleet.Event) error
	// Documents returns all of a kind, by name.
	Documents(ctx context.Context, kind string) ([]Document, error)
	// DeleteDocument deletes one, or ErrNotFound.
	DeleteDocument(ctx context.Context, kind, name string, events ...fleet.Event) error
}

// MaxDocument is the longest Data in bytes.
const MaxDocument = 1 << 20

// Document is identified by its kind and name.
type Document struct {
	Kind, Name string
	// Data are any bytes, never nil.
	Data      []byte
	UpdatedAt time.Time
}

// Change says that a thing changed or is gone.
type Change struct {
	Revision int64
	Kind     ChangeKind
	// Key is an agent's UID, a configuration's name, or a rollout's ID.
	Key     string
	Deleted bool
}

// ChangeKind is a kind of thing that changes.
type ChangeKind string

// The kinds.
const (
	ChangedAgent         ChangeKind = "agent"
	ChangedConfiguration ChangeKind = "configuration"
	ChangedRollout       ChangeKind = "rollout"
)

// Retention says what to keep; a zero time keeps everything of its kind.
type Retention struct {
	// EventsSince keeps events from then on.
	EventsSince time.Time
	// AgentsSince keeps agents that are connected or were seen since then.
	AgentsSince time.Time
}

// Pruned counts what was deleted.
type Pruned struct{ Events, Agents, Bodies int }
