package control

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("database/sql.(*DB).connectionOpener"))
}

// world is a Control over a real store, with agents that poll over HTTP.
type world struct {
	*Control
	t      *testing.T
	path   string
	db     store.Store
	change func(*Options)
}

func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "collie.db"), change: change}
	w.start()
	t.Cleanup(w.end)
	return w
}

func (w *world) start() {
	w.t.Helper()
	db, err := sqlite.Open(w.t.Context(), w.path)
	require.NoError(w.t, err)
	o := Options{Store: db, Log: slog.New(slog.DiscardHandler)}
	if w.change != nil {
		w.change(&o)
	}
	w.db = db
	w.Control, err = New(w.t.Context(), o)
	require.NoError(w.t, err)
	w.Start()
}

// end stops in order, and may be called twice.
func (w *world) end() {
	require.NoError(w.t, w.Stop(context.Background()))
	require.NoError(w.t, w.db.Close())
}

// restart is a new server over the same file.
func (w *world) restart() {
	w.end()
	w.start()
}

const everything = fleet.ReportsStatus | fleet.AcceptsRemoteConfig | fleet.ReportsEffectiveConfig | fleet.ReportsRemoteConfig | fleet.ReportsHealth

// testAgent polls.
type testAgent struct {
	w      *world
	uid    uuid.UUID
	seq    uint64
	header http.Header
	full   *protobufs.AgentToServer
	// config is what it was offered last, offers counts them.
	config *protobufs.AgentRemoteConfig
	offers int
	// custom are the messages that came.
	custom []*protobufs.CustomMessage
	// token is the credential that it was offered last.
	token     string
	tokenHash []byte
}

func (w *world) agent(attributes map[string]string) *testAgent {
	m := &protobufs.AgentToServer{
		Capabilities:     uint64(everything),
		AgentDescription: &protobufs.AgentDescription{IdentifyingAttributes: keyValues(attributes)},
		Health:           &protobufs.ComponentHealth{Healthy: true},
		RemoteConfigStatus: &protobufs.RemoteConfigStatus{
			Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_UNSET,
		},
	}
	return &testAgent{w: w, uid: uuid.Must(uuid.NewV7()), full: m, header: http.Header{}}
}

func keyValues(m map[string]string) []*protobufs.KeyValue {
	var list []*protobufs.KeyValue
	for k, v := range m {
		list = append(list, &protobufs.KeyValue{Key: k, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: v}}})
	}
	return list
}

// hello sends everything.
func (a *testAgent) hello() *protobufs.ServerToAgent {
	return a.send(proto.CloneOf(a.full))
}

// poll sends a heartbeat.
func (a *testAgent) poll() *protobufs.ServerToAgent {
	return a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities})
}

// goodbye disconnects.
func (a *testAgent) goodbye() {
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, AgentDisconnect: &protobufs.AgentDisconnect{}})
}

func (a *testAgent) send(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
	a.w.t.Helper()
	m.InstanceUid, m.SequenceNum = a.uid[:], a.seq
	a.seq++
	data, err := proto.Marshal(m)
	require.NoError(a.w.t, err)
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:4320/v1/opamp", bytes.NewReader(data))
	r.Header = a.header.Clone()
	r.Header.Set("Content-Type", "application/x-protobuf")
	rec := httptest.NewRecorder()
	a.w.Handler().ServeHTTP(rec, r)
	body, err := io.ReadAll(rec.Body)
	require.NoError(a.w.t, err)
	require.Equal(a.w.t, http.StatusOK, rec.Code, "%s", body)
	var answer protobufs.ServerToAgent
	require.NoError(a.w.t, proto.Unmarshal(body, &answer))
	if answer.CustomMessage != nil {
		a.custom = append(a.custom, answer.CustomMessage)
	}
	if token := offeredToken(&answer); token != "" {
		a.token, a.tokenHash = token, answer.ConnectionSettings.Hash
	}
	if answer.RemoteConfig != nil {
		a.config = answer.RemoteConfig
		a.offers++
	}
	return &answer
}

// become reports a status of the last configuration.
func (a *testAgent) become(s protobufs.RemoteConfigStatuses, message string) *protobufs.ServerToAgent {
	a.full.RemoteConfigStatus = &protobufs.RemoteConfigStatus{LastRemoteConfigHash: a.config.GetConfigHash(), Status: s, ErrorMessage: message}
	return a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, RemoteConfigStatus: a.full.RemoteConfigStatus})
}

func (a *testAgent) applied() {
	a.become(protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED, "")
}

// files is what it was offered last.
func (a *testAgent) files() map[string]string {
	m := map[string]string{}
	for name, f := range a.config.GetConfig().GetConfigMap() {
		m[name] = string(f.Body)
	}
	return m
}

// stored is the agent as it is on disk after everything noted was written.
func (a *testAgent) stored() fleet.Agent {
	a.w.t.Helper()
	require.NoError(a.w.t, a.w.save(a.w.t.Context()))
	stored, err := a.w.db.Agent(a.w.t.Context(), a.uid.String())
	require.NoError(a.w.t, err)
	return stored
}

// kinds are those of an agent's events, the oldest first.
func (w *world) kinds(uid string) []fleet.Kind {
	w.t.Helper()
	require.NoError(w.t, w.save(w.t.Context()))
	events, err := w.db.ListEvents(w.t.Context(), store.EventQuery{Agent: uid, OldestFirst: true, Limit: 1000})
	require.NoError(w.t, err)
	var kinds []fleet.Kind
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// saved saves a version and returns its number.
func (w *world) saved(name, selector, body string) int {
	w.t.Helper()
	s, err := fleet.ParseSelector(selector)
	require.NoError(w.t, err)
	v, err := w.SaveConfiguration(w.t.Context(), "test", fleet.Version{Configuration: name, Selector: s, Body: []byte(body)}, store.AnyVersion)
	require.NoError(w.t, err)
	return v.Number
}

// rollOut starts a rollout of the newest version, without soak.
func (w *world) rollOut(name string, spec fleet.RolloutSpec) string {
	w.t.Helper()
	r, err := w.StartRollout(w.t.Context(), "test", name, 0, spec)
	require.NoError(w.t, err)
	return r.ID
}

// release makes a first version the released one, by an agent that comes for it and goes again.
func (w *world) release(name, body string) {
	w.t.Helper()
	w.saved(name, "", body)
	a := w.agent(nil)
	a.hello()
	id := w.rollOut(name, fleet.RolloutSpec{})
	a.untilOffered()
	a.applied()
	w.untilRollout(id, fleet.RolloutDone)
	a.goodbye()
}

// until waits for a condition, and shows the last state if it does not come.
func (w *world) until(what string, condition func() (bool, any)) {
	w.t.Helper()
	var state any
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		ok, now := condition()
		if ok {
			return
		}
		state = now
	}
	require.Fail(w.t, "waited for "+what, "%v", state)
}

func (w *world) untilRollout(id string, want fleet.RolloutState) *fleet.Rollout {
	w.t.Helper()
	var r *fleet.Rollout
	w.until(fmt.Sprintf("rollout %s", want), func() (bool, any) {
		var err error
		r, err = w.db.Rollout(w.t.Context(), id)
		require.NoError(w.t, err)
		return r.State == want, fmt.Sprintf("%s %s", r.State, r.Message)
	})
	return r
}

// untilOffered polls until a configuration came.
func (a *testAgent) untilOffered() {
	a.w.t.Helper()
	before := a.offers
	a.w.until("an offer", func() (bool, any) {
		a.poll()
		return a.offers > before, a.stored().RemoteConfig
	})
}

func (a *testAgent) hash() string { return hex.EncodeToString(a.config.GetConfigHash()) }

// brokenStore does not write or delete agents while fail is set.
type brokenStore struct {
	store.Store
	fail atomic.Bool
}

// blockingStore holds up a write of agents while block is set, and then fails.
type blockingStore struct {
	store.Store
	block          atomic.Bool
	entered, leave chan struct{}
}

func (b *blockingStore) SaveAgents(ctx context.Context, w store.AgentBatch) error {
	if !b.block.Load() || len(w.Agents) == 0 {
		return b.Store.SaveAgents(ctx, w)
	}
	b.entered <- struct{}{}
	<-b.leave
	return errFull
}
