package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/statefile"
)

// Request says what token to make.
type Request struct {
	// Role is one of the apiv1.Role constants.
	Role string
	// Agent is the uid that it is issued for, empty for any. For agent tokens only.
	Agent string
	// Uses is how many agents may enrol with it; -1 is without limit, which all roles but agent must have.
	Uses int
	// Expires is how long it is valid; 0 is for ever.
	Expires time.Duration
}

// secretBytes are random: guessing one is out of the question, whatever the rate.
const secretBytes = 32

// maxExpires keeps times within what the store can order.
const maxExpires = 100 * 365 * 24 * time.Hour

// Create makes a token and returns its secret, which nothing keeps. store.ErrInvalid for a request that makes no sense.
func (k *Keeper) Create(ctx context.Context, actor string, r Request) (secret string, t store.Token, err error) {
	if err := r.validate(); err != nil {
		return "", store.Token{}, err
	}
	secret, t = k.mint(r)
	if err := k.save(ctx, actor, t); err != nil {
		return "", store.Token{}, err
	}
	return secret, t, nil
}

// EnsureAdmin makes an admin token when there is none that is valid, and writes its secret to the file at path, mode 0600. The
// file comes first: after a crash between the two, the next call makes another token and replaces the file.
func (k *Keeper) EnsureAdmin(ctx context.Context, path string) (created bool, err error) {
	now := k.now()
	if len(k.find(func(t *store.Token) bool { return t.Role == apiv1.RoleAdmin && !expired(t, now) })) > 0 {
		return false, nil
	}
	secret, t := k.mint(Request{Role: apiv1.RoleAdmin, Uses: -1})
	if err := statefile.Replace(path, []byte(secret+"\n")); err != nil {
		return false, fmt.Errorf("write the admin token: %w", err)
	}
	return true, k.save(ctx, fleet.ActorServer, t)
}

func (r *Request) validate() error {
	invalid := func(text string) error { return fmt.Errorf("%s: %w", text, store.ErrInvalid) }
	roles := []string{apiv1.RoleAgent, apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin}
	switch {
	case !slices.Contains(roles, r.Role):
		return invalid(fmt.Sprintf("role %.50q: want one of %q", r.Role, roles))
	case r.Uses == 0 || r.Uses < -1:
		return invalid(fmt.Sprintf("uses %d: want 1 or more", r.Uses))
	case r.Expires < 0 || r.Expires > maxExpires:
		return invalid("expires: want a time to come, within 100 years")
	case r.Role != apiv1.RoleAgent && (r.Uses != -1 || r.Agent != ""):
		return invalid("only agent tokens have a number of uses, or an agent")
	}
	return nil
}

// mint makes a token that nothing knows yet.
func (k *Keeper) mint(r Request) (secret string, t store.Token) {
	random := make([]byte, secretBytes+8)
	_, _ = rand.Read(random) // never fails
	secret = "collie_" + r.Role + "_" + base64.RawURLEncoding.EncodeToString(random[:secretBytes])
	t = store.Token{
		ID: hex.EncodeToString(random[secretBytes:]), Role: r.Role, Hash: hash(secret), Agent: r.Agent, Uses: r.Uses,
		CreatedAt: k.now().UTC(),
	}
	if r.Expires > 0 {
		t.ExpiresAt = t.CreatedAt.Add(r.Expires)
	}
	return secret, t
}

func (k *Keeper) save(ctx context.Context, actor string, t store.Token) error {
	event := fleet.Event{
		Time: t.CreatedAt, Actor: actor, Kind: fleet.TokenCreated, Agent: t.Agent, Message: fmt.Sprintf("%s token %s", t.Role, t.ID),
	}
	k.writing.Lock()
	defer k.writing.Unlock()
	if err := k.store.CreateToken(ctx, t, event); err != nil {
		return fmt.Errorf("save token: %w", err)
	}
	k.remember(t)
	return nil
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func isNotFound(err error) bool { return errors.Is(err, store.ErrNotFound) }
