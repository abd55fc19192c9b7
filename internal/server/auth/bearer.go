package auth

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/server/store"
)

// Refused says why a token was not accepted.
type Refused struct {
	// Code is an HTTP status: 401 without a valid token, 403 for the wrong role, 429 after too many failures.
	Code    int
	Message string
	// RetryAfter comes with 429.
	RetryAfter time.Duration
}

func (r *Refused) Error() string { return r.Message }

// maxSecret is longer than any secret; more is not hashed.
const maxSecret = 256

// Bearer returns the token of a request if it is valid and has one of the roles; else a *Refused. Uses are not looked at: they
// count in Redeem.
//
// Failures are limited for each remote address, valid tokens never are: agents behind one NAT cannot lock each other out.
// The limit does not slow down guessing, which 256 random bits make hopeless anyway; it tells a misconfigured client to back
// off. What it costs to find that a token is unknown is one SHA-256.
func (k *Keeper) Bearer(r *http.Request, roles ...string) (store.Token, error) {
	now := k.now()
	t, message := k.authenticate(r, now)
	if message != "" {
		if wait := k.limits.failed(r.RemoteAddr, now); wait > 0 {
			return store.Token{}, &Refused{Code: http.StatusTooManyRequests, Message: "too many failures: " + message, RetryAfter: wait}
		}
		return store.Token{}, &Refused{Code: http.StatusUnauthorized, Message: message}
	}
	if !slices.Contains(roles, t.Role) {
		return store.Token{}, &Refused{
			Code:    http.StatusForbidden,
			Message: fmt.Sprintf("a token of the role %s may not do this: it takes %s", t.Role, strings.Join(roles, " or ")),
		}
	}
	return t, nil
}

// authenticate returns a token, or what is wrong.
func (k *Keeper) authenticate(r *http.Request, now time.Time) (store.Token, string) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return store.Token{}, "send one Authorization header: Bearer and a token"
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	secret = strings.TrimLeft(secret, " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || len(secret) > maxSecret {
		return store.Token{}, "send the header Authorization: Bearer and a token"
	}
	presented := hash(secret)
	k.mu.RLock()
	t, known := k.byHash[presented]
	k.mu.RUnlock()
	// The map compares hashes, which tell nothing of a secret, in whatever time; only this comparison decides.
	if !known || subtle.ConstantTimeCompare([]byte(t.Hash), []byte(presented)) != 1 {
		return store.Token{}, "the token is unknown or was revoked"
	}
	if expired(&t, now) {
		return store.Token{}, "the token has expired: ask for a new one"
	}
	return t, ""
}
