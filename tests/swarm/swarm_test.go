package swarm

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/opampserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet keeps the last report of each agent.
type fleet struct {
	mu      sync.Mutex // guards all below
	reports map[uuid.UUID]opampserver.Report
	texts   map[uuid.UUID]string
	answers []plan.Answer
	gone    map[opampserver.Reason]int
	refuse  int // so many upgrades are still to be refused
}

func (f *fleet) Authenticate(r *http.Request) (opampserver.Principal, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse > 0 {
		f.refuse--
		return opampserver.Principal{}, &opampserver.StatusError{Code: http.StatusServiceUnavailable, Message: "later", RetryAfter: time.Minute}
	}
	if r.Header.Get("Authorization") != "Bearer swarm" {
		return opampserver.Principal{}, errors.New("no token")
	}
	return opampserver.Principal{}, nil
}

func (f *fleet) Admit(opampserver.Principal, uuid.UUID) error { return nil }
func (f *fleet) Dropped(uuid.UUID, error)                     {}

func (f *fleet) Report(_ context.Context, r *opampserver.Report) opampserver.Reply {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports[r.UID] = *r
	if r.EffectiveConfig != nil {
		f.texts[r.UID] = string(r.EffectiveConfig.ConfigMap.ConfigMap[""].Body)
	}
	if r.CustomMessage != nil {
		var a plan.Answer
		_ = json.Unmarshal(r.CustomMessage.Data, &a)
		f.answers = append(f.answers, a)
	}
	return opampserver.Reply{}
}

func (f *fleet) Gone(_ uuid.UUID, reason opampserver.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone[reason]++
}

// rig is a server and a swarm that is connected to it.
type rig struct {
	*testing.T
	*Swarm
	fleet  *fleet
	server *opampserver.Server
}

func start(t *testing.T, config Config) *rig {
	t.Helper()
	f := &fleet{reports: map[uuid.UUID]opampserver.Report{}, texts: map[uuid.UUID]string{}, gone: map[opampserver.Reason]int{}}
	server := opampserver.New(f, slog.New(slog.DiscardHandler), opampserver.Options{CustomCapabilities: []string{plan.Capability}, Drain: time.Millisecond})
	ts := httptest.NewServer(server)
	config.URL = "ws" + strings.TrimPrefix(ts.URL, "http") + opampserver.Path
	config.Header = http.Header{"Authorization": {"Bearer swarm"}}
	s, err := New(config)
	require.NoError(t, err)
	t.Cleanup(func() {
		s.Close()
		_ = server.Shutdown(context.Background())
		ts.Close()
	})
	times, err := s.Connect(t.Context(), 20)
	require.NoError(t, err)
	require.Len(t, times.Each, config.Agents)
	return &rig{t, s, f, server}
}

// await waits for a condition that is asked for with the fleet's lock held.
func (r *rig) await(what string, done func() bool) {
	r.Helper()
	require.Eventually(r, func() bool {
		r.fleet.mu.Lock()
		defer r.fleet.mu.Unlock()
		return done()
	}, 10*time.Second, time.Millisecond, what)
}

// hold keeps what the fleet knows as it is until the test ends.
func (r *rig) hold() {
	r.fleet.mu.Lock()
	r.Cleanup(r.fleet.mu.Unlock)
}

func (r *rig) push(offer *opampserver.Offer) {
	r.Helper()
	for i := range r.agents {
		require.NoError(r, r.server.Push(r.UID(i), offer))
	}
}

func remoteConfig(body string) *protobufs.AgentRemoteConfig {
	hash := sha256.Sum256([]byte(body))
	return &protobufs.AgentRemoteConfig{ConfigHash: hash[:], Config: &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigFile{"base": {Body: []byte(body)}}}}
}

func TestFirstReport(t *testing.T) {
	r := start(t, Config{Agents: 30})
	r.hold()
	require.Len(t, r.fleet.reports, 30)
	distinct := map[string]bool{}
	for i := range 30 {
		state := r.fleet.reports[r.UID(i)].State
		require.Equal(t, uuid.Version(7), r.UID(i).Version())
		require.InDelta(t, 2<<10, proto.Size(state.Description)+proto.Size(state.Health), 64)
		require.Len(t, r.fleet.texts[r.UID(i)], 10<<10)
		distinct[r.fleet.texts[r.UID(i)]] = true
		require.Contains(t, state.Description.String(), fmt.Sprintf("host-%05d", i))
		require.Equal(t, []string{plan.Capability}, state.CustomCapabilities)
	}
	require.Len(t, distinct, variants)
	require.Zero(t, r.Counters().FullState.Load())
}

func TestHeartbeatsSayNothingElse(t *testing.T) {
	r := start(t, Config{Agents: 10, Heartbeat: 50 * time.Millisecond})
	require.Eventually(t, func() bool { return r.Counters().Heartbeats.Load() >= 50 }, 10*time.Second, time.Millisecond)
	r.await("only heartbeats", func() bool {
		for _, report := range r.fleet.reports {
			if report.Changed != 0 || report.EffectiveConfig != nil {
				return false
			}
		}
		return true
	})
	require.Zero(t, r.server.Metrics().Gaps)
	require.Zero(t, r.Counters().FullState.Load())
}

func TestReconnectIsNotAskedForEverything(t *testing.T) {
	r := start(t, Config{Agents: 20})
	require.Equal(t, 15, r.Drop(15))
	r.await("15 lost", func() bool { return r.fleet.gone[opampserver.ReasonLost] == 15 })
	require.Equal(t, 5, r.Connected())
	times, err := r.Reconnect(t.Context(), 15)
	require.NoError(t, err)
	require.Len(t, times.Each, 15)
	require.Positive(t, times.All)
	require.Equal(t, 20, r.Connected())
	require.Zero(t, r.Counters().FullState.Load())
	require.Equal(t, 20, r.Leave(100))
	r.await("20 goodbyes", func() bool { return r.fleet.gone[opampserver.ReasonDisconnect] == 20 })
	require.Zero(t, r.Counters().Lost.Load())
}

func TestFullReportOnDemand(t *testing.T) {
	r := start(t, Config{Agents: 3})
	r.fleet.mu.Lock()
	clear(r.fleet.texts)
	r.fleet.mu.Unlock()
	r.push(&opampserver.Offer{FullState: true})
	r.await("all texts again", func() bool { return len(r.fleet.texts) == 3 })
	require.EqualValues(t, 3, r.Counters().FullState.Load())
}

func TestConfigurations(t *testing.T) {
	r := start(t, Config{Agents: 8, Apply: func(i int, files map[string][]byte) error {
		if i%2 == 1 && string(files["base"]) == "odd: refuse" {
			return errors.New("odd")
		}
		return nil
	}})
	status := func(i int) *protobufs.RemoteConfigStatus { return r.fleet.reports[r.UID(i)].State.RemoteConfigStatus }
	settled := func(hash []byte) func() bool {
		return func() bool {
			for i := range 8 {
				if s := status(i); string(s.GetLastRemoteConfigHash()) != string(hash) || s.Status == protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLYING {
					return false
				}
			}
			return true
		}
	}
	for _, body := range []string{"all: well", "odd: refuse", "odd: refuse"} {
		offer := remoteConfig(body)
		r.push(&opampserver.Offer{RemoteConfig: offer})
		r.await(body, settled(offer.ConfigHash))
	}
	require.Eventually(t, func() bool { return r.Counters().RepeatedOffers.Load() == 8 }, 10*time.Second, time.Millisecond)
	r.await("the texts", func() bool { return strings.HasSuffix(r.fleet.texts[r.UID(0)], "\n# base\nodd: refuse") })
	r.hold()
	require.Equal(t, protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, status(1).Status)
	require.Equal(t, "odd", status(1).ErrorMessage)
	require.True(t, strings.HasSuffix(r.fleet.texts[r.UID(1)], "\n# base\nall: well"))
	require.EqualValues(t, 12, r.Counters().Applied.Load())
	require.EqualValues(t, 4, r.Counters().Failed.Load())
}

func TestPlans(t *testing.T) {
	for name, answer := range map[string]func(int, plan.Request) plan.Answer{
		"by default": nil,
		"refused": func(_ int, r plan.Request) plan.Answer {
			return plan.Answer{ID: r.ID, Outcome: plan.Refused, Stage: "policy"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, Config{Agents: 4, PlanAnswer: answer})
			data, err := json.Marshal(plan.Request{ID: "7", Files: map[string]string{"base": "a: b\n"}})
			require.NoError(t, err)
			r.push(&opampserver.Offer{CustomMessage: &protobufs.CustomMessage{Capability: plan.Capability, Type: plan.TypePlan, Data: data}})
			r.await("answers", func() bool { return len(r.fleet.answers) == 4 })
			r.hold()
			require.Equal(t, "7", r.fleet.answers[0].ID)
			if answer == nil {
				require.Equal(t, plan.Accepted, r.fleet.answers[0].Outcome)
				require.Contains(t, r.fleet.answers[0].Diff, "\n+a: b\n")
			} else {
				require.Equal(t, plan.Refused, r.fleet.answers[0].Outcome)
			}
		})
	}
}

func TestRestartKeepsUIDAndConfiguration(t *testing.T) {
	r := start(t, Config{Agents: 3})
	offer := remoteConfig("kept: yes")
	r.push(&opampserver.Offer{RemoteConfig: offer})
	require.Eventually(t, func() bool { return r.Counters().Applied.Load() == 3 }, 10*time.Second, time.Millisecond)
	r.push(&opampserver.Offer{Restart: true})
	r.await("back with everything", func() bool {
		for i := range 3 {
			if report := r.fleet.reports[r.UID(i)]; !report.Reconnected || report.EffectiveConfig == nil || string(report.State.RemoteConfigStatus.GetLastRemoteConfigHash()) != string(offer.ConfigHash) {
				return false
			}
		}
		return r.fleet.gone[opampserver.ReasonDisconnect] == 3
	})
	require.EqualValues(t, 3, r.Counters().Restarts.Load())
	require.Zero(t, r.Counters().FullState.Load())
}

func TestNewUID(t *testing.T) {
	r := start(t, Config{Agents: 1})
	old, next := r.UID(0), uuid.Must(uuid.NewV7())
	require.NoError(t, r.server.Push(old, &opampserver.Offer{NewUID: next}))
	r.await("the new one", func() bool { return r.fleet.reports[next].State.Description != nil })
	require.Equal(t, next, r.UID(0))
}

func TestRefusedAgentsComeLater(t *testing.T) {
	r := start(t, Config{Agents: 10, MaxWait: 10 * time.Millisecond})
	r.Drop(10)
	r.fleet.mu.Lock()
	r.fleet.refuse = 6
	r.fleet.mu.Unlock()
	times, err := r.Reconnect(t.Context(), 10)
	require.NoError(t, err)
	require.EqualValues(t, 6, times.Refused)
	require.Equal(t, 10, r.Connected())
}

func TestServerCloses(t *testing.T) {
	r := start(t, Config{Agents: 5})
	require.NoError(t, r.server.Shutdown(t.Context()))
	require.Eventually(t, func() bool { return r.Connected() == 0 }, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 5, r.Counters().Closed.Load())
	require.EqualValues(t, 5, r.Counters().Lost.Load())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := r.Reconnect(ctx, 5)
	require.Error(t, err)
}

func TestBadConfig(t *testing.T) {
	for _, c := range []Config{{}, {URL: "ws://127.0.0.1:1/v1/opamp"}, {URL: "http://127.0.0.1:1/", Agents: 1}, {URL: "ws://127.0.0.1/", Agents: 1}} {
		_, err := New(c)
		require.Error(t, err, "%+v", c)
	}
}
