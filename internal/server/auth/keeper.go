package auth

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// Keeper keeps the tokens. It is safe for concurrent use. It must be the only one that writes tokens to its store.
type Keeper struct {
	store  store.Tokens
	now    func() time.Time
	limits *limiter

	// writing is held while the store and byHash change together.
	writing sync.Mutex
	// mu guards byHash.
	mu     sync.RWMutex
	byHash map[string]store.Token
}

// New loads all tokens. A nil now is the clock.
func New(ctx context.Context, tokens store.Tokens, now func() time.Time) (*Keeper, error) {
	if now == nil {
		now = time.Now
	}
	all, err := tokens.ListTokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("load tokens: %w", err)
	}
	k := &Keeper{store: tokens, now: now, limits: newLimiter(), byHash: make(map[string]store.Token, len(all))}
	for _, t := range all {
		k.byHash[t.Hash] = t
	}
	return k, nil
}

// AtLeast lists the roles of the API that may do what role may.
func AtLeast(role string) []string {
	switch role {
	case apiv1.RoleViewer:
		return []string{apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin}
	case apiv1.RoleOperator:
		return []string{apiv1.RoleOperator, apiv1.RoleAdmin}
	default:
		return []string{role}
	}
}

// List returns all tokens, the oldest first.
func (k *Keeper) List(ctx context.Context) ([]store.Token, error) { return k.store.ListTokens(ctx) }

// Redeem counts one use of a token with limited uses: call it once for each agent that enrols. *Refused when it is used up or
// was revoked. Agents that enrolled before go on with the token.
func (k *Keeper) Redeem(ctx context.Context, t store.Token) error {
	if t.Uses < 0 {
		return nil
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	used, err := k.store.UseToken(ctx, t.Hash, k.now())
	if isNotFound(err) {
		return &Refused{Code: 401, Message: "the token is used up, expired or revoked: ask for a new one"}
	}
	if err != nil {
		return fmt.Errorf("use token %s: %w", t.ID, err)
	}
	k.remember(used)
	return nil
}

// Valid says whether a token that was accepted once has not been revoked since, and has not expired.
func (k *Keeper) Valid(t store.Token) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	known, found := k.byHash[t.Hash]
	return found && !expired(&known, k.now())
}

// Revoke deletes a token; from then on it is refused. store.ErrNotFound.
func (k *Keeper) Revoke(ctx context.Context, actor, id string) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.revoke(ctx, actor, func(t *store.Token) bool { return t.ID == id }, id)
}

// Known says whether the token of this id has neither been revoked nor expired.
func (k *Keeper) Known(id string) bool {
	now := k.now()
	return len(k.find(func(t *store.Token) bool { return t.ID == id && !expired(t, now) })) > 0
}

// RevokeAgent revokes the tokens that were issued for an agent, but those of these ids.
func (k *Keeper) RevokeAgent(ctx context.Context, actor, uid string, except ...string) error {
	if uid == "" {
		return fmt.Errorf("revoke the tokens of an agent: no uid: %w", store.ErrInvalid)
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.revoke(ctx, actor, func(t *store.Token) bool { return t.Agent == uid && !slices.Contains(except, t.ID) }, "")
}

// RevokeAgents revokes all tokens that were issued for these agents.
func (k *Keeper) RevokeAgents(ctx context.Context, actor string, uids map[string]struct{}) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	return k.revoke(ctx, actor, func(t *store.Token) bool {
		_, among := uids[t.Agent]
		return among && t.Agent != ""
	}, "")
}

// revoke revokes the tokens that match. If there is none and id is not empty, that is an error. Hold writing.
func (k *Keeper) revoke(ctx context.Context, actor string, matches func(*store.Token) bool, id string) error {
	found := k.find(matches)
	if len(found) == 0 && id != "" {
		return fmt.Errorf("token %s: %w", id, store.ErrNotFound)
	}
	for _, t := range found {
		event := fleet.Event{
			Time: k.now(), Actor: actor, Kind: fleet.TokenRevoked, Agent: t.Agent, Message: fmt.Sprintf("%s token %s", t.Role, t.ID),
		}
		if err := k.store.RevokeToken(ctx, t.ID, event); err != nil && !isNotFound(err) {
			return fmt.Errorf("revoke token %s: %w", t.ID, err)
		}
		k.mu.Lock()
		delete(k.byHash, t.Hash)
		k.mu.Unlock()
	}
	return nil
}

func (k *Keeper) find(matches func(*store.Token) bool) []store.Token {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var found []store.Token
	for _, t := range k.byHash {
		if matches(&t) {
			found = append(found, t)
		}
	}
	return found
}

func (k *Keeper) remember(t store.Token) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.byHash[t.Hash] = t
}

func expired(t *store.Token, now time.Time) bool {
	return !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt)
}
