package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a keeper over a real store, with a clock that only the test moves.
type rig struct {
	*Keeper
	store store.Store
	dir   string
	mu    sync.Mutex
	time  time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{dir: t.TempDir(), time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s, err := sqlite.Open(t.Context(), filepath.Join(g.dir, "collie.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	g.store = s
	g.reload(t)
	return g
}

func (g *rig) reload(t *testing.T) {
	t.Helper()
	k, err := New(t.Context(), g.store, g.now)
	require.NoError(t, err)
	g.Keeper = k
}

func (g *rig) now() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.time
}

func (g *rig) advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.time = g.time.Add(d)
}

func (g *rig) create(t *testing.T, r Request) (string, store.Token) {
	t.Helper()
	secret, token, err := g.Create(t.Context(), "tester", r)
	require.NoError(t, err)
	return secret, token
}

func request(secret string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if secret != "" {
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	return r
}

func code(err error) int {
	var refused *Refused
	if err == nil {
		return http.StatusOK
	}
	if errors.As(err, &refused) {
		return refused.Code
	}
	return -1
}

func TestRoles(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	roles := []string{apiv1.RoleAgent, apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin}
	allowed := map[string]string{
		apiv1.RoleAgent: "agent", apiv1.RoleViewer: "viewer operator admin", apiv1.RoleOperator: "operator admin", apiv1.RoleAdmin: "admin",
	}
	for _, has := range roles {
		secret, token := g.create(t, Request{Role: has, Uses: -1})
		require.True(t, strings.HasPrefix(secret, "collie_"+has+"_"), secret)
		for _, wants := range roles {
			got, err := g.Bearer(request(secret), AtLeast(wants)...)
			if strings.Contains(" "+allowed[wants]+" ", " "+has+" ") {
				require.NoError(t, err, "%s for %s", has, wants)
				require.Equal(t, token, got)
			} else {
				require.Equal(t, http.StatusForbidden, code(err), "%s for %s", has, wants)
			}
		}
	}
}

func TestBearerRefuses(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	secret, token := g.create(t, Request{Role: apiv1.RoleViewer, Uses: -1, Expires: time.Hour})
	for name, header := range map[string][]string{
		"nothing":     nil,
		"empty":       {""},
		"no scheme":   {secret},
		"basic":       {"Basic " + secret},
		"no token":    {"Bearer "},
		"another":     {"Bearer " + secret + "A"},
		"upper case":  {"Bearer " + strings.ToUpper(secret)},
		"its hash":    {"Bearer " + hash(secret)},
		"two headers": {"Bearer " + secret, "Bearer " + secret},
		"huge":        {"Bearer " + strings.Repeat("a", 1<<20)},
		"nul":         {"Bearer " + secret + "\x00"},
	} {
		r := request("")
		r.RemoteAddr = "10.0.0.1:" + "1"
		r.Header["Authorization"] = header
		_, err := g.Bearer(r, apiv1.RoleViewer)
		require.Equal(t, http.StatusUnauthorized, code(err), name)
		require.NotContains(t, err.Error(), secret)
	}
	r := request("")
	r.Header.Set("Authorization", "bearer   "+secret)
	_, err := g.Bearer(r, apiv1.RoleViewer)
	require.NoError(t, err, "schemes have no case")

	g.advance(time.Hour - 1)
	_, err = g.Bearer(request(secret), apiv1.RoleViewer)
	require.NoError(t, err)
	require.True(t, g.Valid(token))
	g.advance(1)
	require.False(t, g.Valid(token))
	_, err = g.Bearer(request(secret), apiv1.RoleViewer)
	require.Equal(t, http.StatusUnauthorized, code(err))
	require.ErrorContains(t, err, "expired")
}

func TestRevocationAndReload(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	kept, _ := g.create(t, Request{Role: apiv1.RoleAdmin, Uses: -1})
	gone, token := g.create(t, Request{Role: apiv1.RoleAdmin, Uses: -1})
	require.NoError(t, g.Revoke(t.Context(), "tester", token.ID))
	require.ErrorIs(t, g.Revoke(t.Context(), "tester", token.ID), store.ErrNotFound)
	require.False(t, g.Valid(token))
	for range 2 {
		_, err := g.Bearer(request(gone), apiv1.RoleAdmin)
		require.Equal(t, http.StatusUnauthorized, code(err))
		_, err = g.Bearer(request(kept), apiv1.RoleAdmin)
		require.NoError(t, err)
		g.reload(t)
	}
	events, err := g.store.ListEvents(t.Context(), store.EventQuery{})
	require.NoError(t, err)
	require.Len(t, events, 3)
	require.Equal(t, fleet.TokenRevoked, events[0].Kind)
	require.Equal(t, "tester", events[0].Actor)
	require.Contains(t, events[0].Message, token.ID)
}

func TestUsesAreCountedByRedeem(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	secret, token := g.create(t, Request{Role: apiv1.RoleAgent, Uses: 3})
	var enrolled sync.Map
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			if g.Redeem(context.Background(), token) == nil {
				enrolled.Store(i, true)
			}
		})
	}
	wait.Wait()
	n := 0
	enrolled.Range(func(any, any) bool { n++; return true })
	require.Equal(t, 3, n)
	require.Equal(t, http.StatusUnauthorized, code(g.Redeem(t.Context(), token)))
	got, err := g.Bearer(request(secret), apiv1.RoleAgent)
	require.NoError(t, err, "those who enrolled go on with it")
	require.Zero(t, got.Uses)

	_, forever := g.create(t, Request{Role: apiv1.RoleAgent, Uses: -1})
	for range 10 {
		require.NoError(t, g.Redeem(t.Context(), forever))
	}
}

func TestCreateRefusesNonsense(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	for name, r := range map[string]Request{
		"no role": {Uses: -1}, "role": {Role: "root", Uses: -1}, "no uses": {Role: apiv1.RoleAgent},
		"uses": {Role: apiv1.RoleAgent, Uses: -2}, "admin with uses": {Role: apiv1.RoleAdmin, Uses: 1},
		"viewer of an agent": {Role: apiv1.RoleViewer, Uses: -1, Agent: "a"}, "past": {Role: apiv1.RoleViewer, Uses: -1, Expires: -1},
		"far": {Role: apiv1.RoleViewer, Uses: -1, Expires: 1<<63 - 1},
	} {
		_, _, err := g.Create(t.Context(), "tester", r)
		require.ErrorIs(t, err, store.ErrInvalid, name)
	}
	tokens, err := g.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, tokens)
}

func TestRevokeAgent(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	_, first := g.create(t, Request{Role: apiv1.RoleAgent, Uses: -1, Agent: "one"})
	_, second := g.create(t, Request{Role: apiv1.RoleAgent, Uses: -1, Agent: "one"})
	_, other := g.create(t, Request{Role: apiv1.RoleAgent, Uses: -1, Agent: "two"})
	_, any := g.create(t, Request{Role: apiv1.RoleAgent, Uses: -1})
	require.ErrorIs(t, g.RevokeAgent(t.Context(), "tester", "", ""), store.ErrInvalid, "it would revoke all that are for any agent")
	require.NoError(t, g.RevokeAgent(t.Context(), "tester", "one", second.ID))
	require.NoError(t, g.RevokeAgent(t.Context(), "tester", "one", second.ID))
	tokens, err := g.List(t.Context())
	require.NoError(t, err)
	var ids []string
	for _, token := range tokens {
		ids = append(ids, token.ID)
	}
	require.ElementsMatch(t, []string{second.ID, other.ID, any.ID}, ids)
	require.NotContains(t, ids, first.ID)
}

func TestEnsureAdmin(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	path := filepath.Join(g.dir, "admin-token")
	created, err := g.EnsureAdmin(t.Context(), path)
	require.NoError(t, err)
	require.True(t, created)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = g.Bearer(request(strings.TrimSpace(string(content))), apiv1.RoleAdmin)
	require.NoError(t, err)

	g.reload(t)
	created, err = g.EnsureAdmin(t.Context(), path)
	require.NoError(t, err)
	require.False(t, created)

	blocked := newRig(t)
	require.NoError(t, os.WriteFile(filepath.Join(blocked.dir, "file"), nil, 0o600))
	_, err = blocked.EnsureAdmin(t.Context(), filepath.Join(blocked.dir, "file", "token"))
	require.Error(t, err)
	tokens, err := blocked.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, tokens, "nobody knows the secret: there must not be such a token")
}

func TestNoSecretIsOnDisk(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var secrets []string
	for _, role := range []string{apiv1.RoleAgent, apiv1.RoleAdmin} {
		secret, _ := g.create(t, Request{Role: role, Uses: -1})
		secrets = append(secrets, secret)
	}
	require.NoError(t, g.store.Close())
	files, err := filepath.Glob(filepath.Join(g.dir, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	found := false
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, secret := range secrets {
			require.False(t, bytes.Contains(content, []byte(secret[len(secret)-20:])), file)
			found = found || bytes.Contains(content, []byte(hash(secret)))
		}
	}
	require.True(t, found, "the hash is what is stored")
}

func TestFailuresAreLimitedByAddress(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	secret, _ := g.create(t, Request{Role: apiv1.RoleViewer, Uses: -1})
	try := func(address, secret string) error {
		r := request(secret)
		r.RemoteAddr = address
		_, err := g.Bearer(r, apiv1.RoleViewer)
		return err
	}
	for i := range failureBurst {
		require.Equal(t, 401, code(try(fmt.Sprintf("[2001:db8::%x]:%d", i, i), "wrong")), "%d", i)
	}
	err := try("[2001:db8::ffff]:1", "wrong")
	require.Equal(t, 429, code(err), "one /64 is one address")
	var refused *Refused
	require.ErrorAs(t, err, &refused)
	require.Equal(t, time.Second, refused.RetryAfter)
	require.NoError(t, try("[2001:db8::ffff]:1", secret), "a valid token always passes")
	require.Equal(t, 401, code(try("[2001:db8:0:1::1]:1", "wrong")), "others are not limited")
	g.advance(time.Second)
	require.Equal(t, 401, code(try("[2001:db8::1]:1", "wrong")))
	require.Equal(t, 429, code(try("[2001:db8::1]:1", "wrong")))
}

func TestAddressesAreBounded(t *testing.T) {
	t.Parallel()
	l := newLimiter()
	now := time.Unix(1_000_000, 0)
	for i := range maxAddresses + 500 {
		l.failed(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
	}
	require.Len(t, l.full, maxAddresses)
	l.failed("not an address", now.Add(time.Hour))
	require.LessOrEqual(t, len(l.full), maxAddresses)
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 5 {
				secret, token, err := g.Create(context.Background(), "tester", Request{Role: apiv1.RoleAgent, Uses: 5})
				if err != nil {
					t.Error(err)
					return
				}
				_, err = g.Bearer(request(secret), apiv1.RoleAgent)
				if err != nil || g.Redeem(context.Background(), token) != nil {
					t.Error("refused", err)
				}
				if err := g.Revoke(context.Background(), "tester", token.ID); err != nil {
					t.Error(err)
				}
				if _, err = g.Bearer(request(secret), apiv1.RoleAgent); code(err) == http.StatusOK {
					t.Error("revoked, and accepted")
				}
			}
		})
	}
	wait.Wait()
	tokens, err := g.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, tokens)
}

func BenchmarkBearer(b *testing.B) {
	k := &Keeper{now: time.Now, limits: newLimiter(), byHash: map[string]store.Token{}}
	secret, token := k.mint(Request{Role: apiv1.RoleAgent, Uses: -1})
	k.remember(token)
	r := request(secret)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Bearer(r, apiv1.RoleAgent); err != nil {
			b.Fatal(err)
		}
	}
}
