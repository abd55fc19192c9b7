package api

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	uid1 = "00000000-0000-7000-8000-000000000001"
	uid2 = "00000000-0000-7000-8000-000000000002"
)

// rig is an API over a real store and a fake Control.
type rig struct {
	*API
	store   *sqlite.Store
	control *fakeControl
	keeper  *auth.Keeper
	secrets map[string]string // by role
	log     *syncBuffer
}

// newDev is a server without tokens.
func newDev(t testing.TB) *rig { return newRig(t, false) }

// newGuarded is a server with a token of each role.
func newGuarded(t testing.TB) *rig { return newRig(t, true) }

func newRig(t testing.TB, guarded bool) *rig {
	t.Helper()
	s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "collie.db"))
	require.NoError(t, err)
	g := &rig{store: s, control: &fakeControl{store: s}, secrets: map[string]string{}, log: &syncBuffer{}}
	if guarded {
		g.keeper, err = auth.New(context.Background(), s, nil)
		require.NoError(t, err)
		for _, role := range []string{apiv1.RoleAgent, apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin} {
			g.secrets[role], _, err = g.keeper.Create(context.Background(), "test", auth.Request{Role: role, Uses: -1})
			require.NoError(t, err)
		}
	}
	g.API = New(Options{Store: s, Control: g.control, Auth: g.keeper, Log: slog.New(slog.NewTextHandler(g.log, nil))})
	t.Cleanup(func() {
		g.API.Close()
		g.API.Close()
		require.NoError(t, s.Close())
	})
	return g
}

// ask is a request under a loopback name.
func ask(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (g *rig) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func (g *rig) do(method, path, body string) *httptest.ResponseRecorder {
	return g.serve(ask(method, prefix+path, body))
}

// as sends the request with the token of a role.
func (g *rig) as(role string, r *http.Request) *httptest.ResponseRecorder {
	r.Header.Set("Authorization", "Bearer "+g.secrets[role])
	return g.serve(r)
}

// get decodes an answer of a status.
func get[T any](t testing.TB, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var document T
	require.Equal(t, status, w.Code, w.Body)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&document))
	return document
}

// refused checks that an answer is a problem, and returns its detail.
func refused(t testing.TB, w *httptest.ResponseRecorder, status int) string {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body)
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	var p apiv1.Problem
	d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&p), w.Body)
	require.Equal(t, "about:blank", p.Type)
	require.Equal(t, status, p.Status)
	require.Equal(t, http.StatusText(status), p.Title)
	require.NotEmpty(t, p.Detail)
	return p.Detail
}

func (g *rig) saveAgents(t testing.TB, agents ...fleet.Agent) {
	t.Helper()
	require.NoError(t, g.store.SaveAgents(context.Background(), store.AgentBatch{Agents: agents}))
}

func quoted(text string) string {
	b, _ := json.Marshal(text)
	return string(b)
}

// syncBuffer is a log that a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
