package agent

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/collie-otel/collie/internal/statefile"
)

const (
	applied  = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED
	applying = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLYING
	failed   = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED
)

// offering is a server that puts an offer beside its n-th answer, as long as there is one in its queue.
type offering struct {
	*fakeServer
	offers chan *protobufs.ConnectionSettingsOffers
}

func serveOffers(t *testing.T) *offering {
	t.Helper()
	o := &offering{offers: make(chan *protobufs.ConnectionSettingsOffers, 64)}
	o.fakeServer = serve(t, &fakeServer{answer: func(_ int, m *protobufs.AgentToServer) []byte {
		reply := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: uint64(takesConfig)}
		select {
		case reply.ConnectionSettings = <-o.offers:
		default:
		}
		return encoded(reply)
	}})
	return o
}

func endpointOffer(hash, endpoint string) *protobufs.ConnectionSettingsOffers {
	return &protobufs.ConnectionSettingsOffers{Hash: []byte(hash), Opamp: &protobufs.OpAMPConnectionSettings{DestinationEndpoint: endpoint}}
}

// plain builds the settings of offers without an extension: only the endpoint counts.
func plain(t *testing.T, local Settings) Settings {
	t.Helper()
	local.Trusted = true
	local.With = func(_ context.Context, o Offer) (Settings, error) {
		if strings.Contains(o.Endpoint, "unusable") {
			return Settings{}, errors.New("this one is unusable")
		}
		offered := local
		if o.Endpoint != "" {
			offered.Endpoint = o.Endpoint
			offered.Transport = WebSocket
			if strings.HasPrefix(o.Endpoint, "http") {
				offered.Transport = HTTP
			}
		}
		offered.Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		return offered, nil
	}
	return local
}

// offerSession is a connected session in a storage that outlives it.
func offerSession(t *testing.T, dir string, settings Settings) *Session {
	t.Helper()
	s, err := Open(Options{StorageDirectory: dir, Logger: zap.NewNop()}, settings)
	require.NoError(t, err)
	s.SetCapabilities(reportsAll | acceptsOpAMP | reportsConnection)
	for _, set := range setters {
		set(s, "old")
	}
	t.Cleanup(func() { closeSession(t, s) })
	return s
}

// status waits for a message, from number `from` on, that reports a status of an offer, and returns it with its number.
func (f *fakeServer) status(t *testing.T, from int, hash string, want protobufs.ConnectionSettingsStatuses) (*protobufs.AgentToServer, int) {
	t.Helper()
	var found *protobufs.AgentToServer
	at := 0
	f.await(t, func() bool {
		for i := min(from, len(f.got)); i < len(f.got); i++ {
			if st := f.got[i].ConnectionSettingsStatus; string(st.GetLastConnectionSettingsHash()) == hash && st.GetStatus() == want {
				found, at = f.got[i], i
				return true
			}
		}
		return false
	})
	return found, at
}

func scheme(transport Transport, endpoint string) string {
	if transport == WebSocket {
		return "ws" + strings.TrimPrefix(endpoint, "http")
	}
	return endpoint
}

// TestSwitch: from each transport to each other, told, left in order, and kept by the next process.
func TestSwitch(t *testing.T) {
	t.Parallel()
	for from, transport := range transports {
		for to, next := range transports {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				one, two, dir := serveOffers(t), serveOffers(t), t.TempDir()
				local := plain(t, one.settings(t, transport))
				s := offerSession(t, dir, local)
				offer := endpointOffer("h1", scheme(next, two.url))
				offer.Opamp.HeartbeatIntervalSeconds = 7
				one.offers <- offer
				s.Begin()
				_, at := one.status(t, 0, "h1", applying)
				one.await(t, func() bool { return len(one.got) > at+1 && one.got[at+1].AgentDisconnect != nil })
				first := two.messages(t, 1)[0]
				require.Equal(t, everything, has(first))
				require.Equal(t, applying, first.ConnectionSettingsStatus.Status, "not before it is known to work")
				two.status(t, 1, "h1", applied)
				require.Eventually(t, s.Connected, patience, time.Millisecond)
				require.Equal(t, 7*time.Second, s.interval(local))
				require.Len(t, one.messages(t, 0), at+2, "nothing more for the old server")

				// The same again: no connection, no candidate.
				two.offers <- endpointOffer("h1", "ws://127.0.0.1:1/elsewhere")
				setters["health"](s, "again")
				two.await(t, func() bool { return two.got[len(two.got)-1].Health.GetStatus() == "again" })
				require.Eventually(t, func() bool { return len(two.offers) == 0 }, patience, time.Millisecond)
				closeSession(t, s)

				before := len(two.messages(t, 0))
				again := offerSession(t, dir, local)
				again.Begin()
				first = two.messages(t, before+1)[before]
				require.Equal(t, applied, first.ConnectionSettingsStatus.Status)
				require.Equal(t, 7*time.Second, again.interval(local))
				require.Len(t, one.messages(t, 0), at+2)
			})
		}
	}
}

// TestSwitchWaitsForAPPLYING: it is put off with a full report that is asked for too soon, and the connection is kept that long.
func TestSwitchWaitsForAPPLYING(t *testing.T) {
	t.Parallel()
	two := serveOffers(t)
	one := serve(t, &fakeServer{answer: func(n int, m *protobufs.AgentToServer) []byte {
		reply := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid}
		if n == 0 {
			reply.Flags, reply.ConnectionSettings = 1, endpointOffer("h", two.url)
		}
		return encoded(reply)
	}})
	s := offerSession(t, t.TempDir(), plain(t, one.settings(t, WebSocket)))
	s.Begin()
	two.status(t, 0, "h", applied)
	all := one.messages(t, 3)
	require.Equal(t, applying, all[1].ConnectionSettingsStatus.GetStatus())
	require.NotNil(t, all[2].AgentDisconnect)
}

// TestSwitchFails: whatever is wrong with the candidate, the agent is back in time, says why, and does not try again.
func TestSwitchFails(t *testing.T) {
	t.Parallel()
	dead := "http://127.0.0.1:1/v1/opamp"
	refused := func(status int) func(t *testing.T) string {
		return func(t *testing.T) string {
			return serve(t, &fakeServer{admit: func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return false }}).url
		}
	}
	answers := func(reply func(m *protobufs.AgentToServer) *protobufs.ServerToAgent) func(t *testing.T) string {
		return func(t *testing.T) string {
			return serve(t, &fakeServer{answer: func(_ int, m *protobufs.AgentToServer) []byte { return encoded(reply(m)) }}).url
		}
	}
	for name, tt := range map[string]struct {
		candidate func(t *testing.T) string
		reason    string
		atOnce    bool // no second try
	}{
		"dead":     {func(*testing.T) string { return dead }, "refused", false},
		"401":      {refused(http.StatusUnauthorized), "refuses the credentials", true},
		"403":      {refused(http.StatusForbidden), "refuses the credentials", true},
		"500":      {refused(http.StatusInternalServerError), "500", false},
		"unusable": {func(*testing.T) string { return "http://127.0.0.1/unusable" }, "this one is unusable", true},
		"error answer": {answers(func(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
			return &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, ErrorResponse: refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, 0)}
		}), "BadRequest: no thanks", true},
		"unavailable for long": {answers(func(m *protobufs.AgentToServer) *protobufs.ServerToAgent {
			return &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, ErrorResponse: refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, time.Minute)}
		}), "unavailable", true},
		"answers to somebody else": {answers(func(*protobufs.AgentToServer) *protobufs.ServerToAgent {
			return &protobufs.ServerToAgent{InstanceUid: uidC[:]}
		}), "no valid answer", false},
		"answers to nobody": {answers(func(*protobufs.AgentToServer) *protobufs.ServerToAgent { return &protobufs.ServerToAgent{} }), "no valid answer", false},
		"silence": {func(t *testing.T) string {
			return serve(t, &fakeServer{admit: func(_ http.ResponseWriter, r *http.Request) bool {
				_, _ = io.Copy(io.Discard, r.Body) // or the end of the connection is not noticed
				<-r.Context().Done()
				return false
			}}).url
		}, "no valid answer", false},
	} {
		for kind, transport := range transports {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				one := serveOffers(t)
				local := plain(t, one.settings(t, transport))
				s := offerSession(t, t.TempDir(), local)
				if !tt.atOnce {
					s.offers.within = 2 * time.Second
				}
				candidate := scheme(transport, tt.candidate(t))
				one.offers <- endpointOffer("bad", candidate)
				s.Begin()
				one.messages(t, 1)
				began := time.Now()
				require.Eventually(t, func() bool {
					one.mu.Lock()
					defer one.mu.Unlock()
					return one.got[len(one.got)-1].ConnectionSettingsStatus.GetStatus() == failed
				}, 30*time.Second, 10*time.Millisecond)
				back, at := one.status(t, 1, "bad", failed)
				require.Less(t, time.Since(began), trialLimit/2)
				require.Contains(t, back.ConnectionSettingsStatus.ErrorMessage, tt.reason)
				if name != "unusable" {
					require.Equal(t, everything, has(back))
					_, told := one.status(t, 0, "bad", applying)
					require.NotNil(t, one.messages(t, 0)[told+1].AgentDisconnect)
				}

				one.offers <- endpointOffer("bad", candidate)
				setters["health"](s, "well")
				one.await(t, func() bool { return len(one.got) > at+1 })
				require.Eventually(t, func() bool { return s.report.goesAlong() }, patience, time.Millisecond)
				setters["health"](s, "very well")
				last := one.messages(t, at+3)[at+2]
				require.Equal(t, "very well", last.Health.Status, "the connection is the same: nothing was tried")
				require.Equal(t, failed, last.ConnectionSettingsStatus.GetStatus(), "the status goes along")
			})
		}
	}
}

func (r *report) goesAlong() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.along&partConnectionStatus != 0
}

// TestFailedIsRemembered by the next process.
func TestFailedIsRemembered(t *testing.T) {
	t.Parallel()
	one, dir := serveOffers(t), t.TempDir()
	local := plain(t, one.settings(t, WebSocket))
	one.offers <- endpointOffer("bad", "ws://127.0.0.1/unusable")
	s := offerSession(t, dir, local)
	s.Begin()
	_, at := one.status(t, 0, "bad", failed)
	require.Eventually(t, func() bool { _, received := s.Messages(); return received == 2 }, patience, time.Millisecond)
	closeSession(t, s)
	one.offers <- endpointOffer("bad", "ws://127.0.0.1/usable-now")
	offerSession(t, dir, local).Begin()
	all := one.messages(t, at+3)
	require.Equal(t, failed, all[at+2].ConnectionSettingsStatus.Status)
	require.Equal(t, 2, one.conns)
}

// TestIntervalNeedsNoSwitch: neither does an offer of what is in force.
func TestIntervalNeedsNoSwitch(t *testing.T) {
	t.Parallel()
	one, dir := serveOffers(t), t.TempDir()
	local := plain(t, one.settings(t, WebSocket))
	only := offer(9)
	only.Hash = []byte("interval")
	one.offers <- only
	s := offerSession(t, dir, local)
	s.Begin()
	one.status(t, 0, "interval", applied)
	require.Equal(t, 9*time.Second, s.interval(local))
	closeSession(t, s)
	same := endpointOffer("same", local.Endpoint)
	one.offers <- same
	again := offerSession(t, dir, local)
	require.Equal(t, 9*time.Second, again.interval(local), "kept")
	again.Begin()
	one.status(t, 0, "same", applied)
	require.Equal(t, 2, one.conns)
	require.Equal(t, 9*time.Second, again.interval(local))
}

// TestCandidateAfterCrash: a candidate on disk is tried, a few times, and the settings before hold after that.
func TestCandidateAfterCrash(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		endpoint string
		starts   int
		applied  bool
	}{
		"good":         {"", 1, true},
		"bad":          {"http://127.0.0.1/unusable", 1, false},
		"tried enough": {"", maxStarts, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two, dir := serveOffers(t), serveOffers(t), t.TempDir()
			local := plain(t, one.settings(t, HTTP))
			if tt.endpoint == "" {
				tt.endpoint = two.url
			}
			require.NoError(t, statefile.Write(filepath.Join(dir, offersFile), storedOffers{
				Key: local.Key, Starts: tt.starts, Candidate: &storedOffer{[]byte("h"), Offer{Endpoint: tt.endpoint}},
			}))
			offerSession(t, dir, local).Begin()
			if tt.applied {
				two.status(t, 0, "h", applied)
				require.Empty(t, one.messages(t, 0))
				return
			}
			one.status(t, 0, "h", failed)
			require.Empty(t, two.messages(t, 0))
		})
	}
}

// TestOfferStateDamaged: it is set aside, and the configured connection holds.
func TestOfferStateDamaged(t *testing.T) {
	t.Parallel()
	one, two, dir := serveOffers(t), serveOffers(t), t.TempDir()
	local := plain(t, one.settings(t, HTTP))
	path := filepath.Join(dir, offersFile)
	require.NoError(t, statefile.Write(path, storedOffers{Key: local.Key, Applied: &storedOffer{[]byte("h"), Offer{Endpoint: two.url}}}))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data[:len(data)/2], 0o600))
	offerSession(t, dir, local).Begin()
	first := one.messages(t, 1)[0]
	require.Empty(t, first.ConnectionSettingsStatus.LastConnectionSettingsHash, "the server is told that the offer is gone")
	require.Empty(t, two.messages(t, 0))
	aside, err := filepath.Glob(path + ".damaged-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
}

// TestLocalConfigurationWins when it changes, over what was offered on top of the one before: at a start and in a reload.
func TestLocalConfigurationWins(t *testing.T) {
	t.Parallel()
	one, two, three, dir := serveOffers(t), serveOffers(t), serveOffers(t), t.TempDir()
	local := plain(t, one.settings(t, WebSocket))
	require.NoError(t, statefile.Write(filepath.Join(dir, offersFile), storedOffers{
		Key: local.Key, Applied: &storedOffer{[]byte("h"), Offer{Endpoint: two.url, Interval: time.Minute}},
		Last: storedStatus{[]byte("h"), applied, ""},
	}))
	s := offerSession(t, dir, local)
	s.Begin()
	require.Equal(t, applied, two.messages(t, 1)[0].ConnectionSettingsStatus.Status)
	require.Equal(t, time.Minute, s.interval(local))

	moved := plain(t, three.settings(t, WebSocket))
	s.Use(zap.NewNop(), moved, func() {})
	first := three.messages(t, 1)[0]
	require.NotNil(t, first.ConnectionSettingsStatus)
	require.Empty(t, first.ConnectionSettingsStatus.LastConnectionSettingsHash)
	require.Equal(t, time.Hour, s.interval(moved))
	require.Eventually(t, s.Connected, patience, time.Millisecond)
	closeSession(t, s)
	offerSession(t, dir, moved).Begin()
	three.messages(t, 3)
	require.Empty(t, one.messages(t, 0))
}

// TestFlood: whatever is offered, and however often, one new offer in five seconds is looked at, the newest one.
func TestFlood(t *testing.T) {
	t.Parallel()
	var looked atomic.Int32
	one := serve(t, &fakeServer{answer: func(n int, m *protobufs.AgentToServer) []byte {
		return encoded(&protobufs.ServerToAgent{
			InstanceUid: m.InstanceUid, Flags: 1, ConnectionSettings: endpointOffer(uuid.NewString(), "http://127.0.0.1/unusable"),
		})
	}})
	local := plain(t, one.settings(t, HTTP))
	local.With = func(context.Context, Offer) (Settings, error) { looked.Add(1); return Settings{}, errors.New("no") }
	s := offerSession(t, t.TempDir(), local)
	s.Begin()
	one.await(t, func() bool { return len(one.got) > 2 })
	require.EqualValues(t, 1, looked.Load())
	require.Eventually(t, func() bool { return looked.Load() == 2 }, patience, 10*time.Millisecond)
	one.mu.Lock()
	defer one.mu.Unlock()
	require.Less(t, len(one.got), 30, "and no message is sent for it")
}

// TestOfferNotAccepted: without the capability nothing happens.
func TestOfferNotAccepted(t *testing.T) {
	t.Parallel()
	s := newTestSession(t)
	s.SetCapabilities(0)
	s.report.lacking = 0
	require.NoError(t, s.receive(&protobufs.ServerToAgent{ConnectionSettings: endpointOffer("h", "http://127.0.0.1:1")}))
	require.Equal(t, idle, s.offers.phase)
	require.Zero(t, s.report.lacking)
	require.NoFileExists(t, s.offers.path)
}

// TestOfferKeepsSecrets: they are in a file that only its owner reads, and nowhere else.
func TestOfferKeepsSecrets(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	s := newTestSession(t)
	s.log = zap.New(core)
	s.SetCapabilities(acceptsOpAMP | reportsConnection)
	m := endpointOffer("h", "http://user:s3cr3t@127.0.0.1:1/")
	m.Opamp.Headers = &protobufs.Headers{Headers: []*protobufs.Header{{Key: "Authorization", Value: "s3cr3t"}}}
	m.Opamp.Proxy = &protobufs.ProxyConnectionSettings{Url: "http://u:s3cr3t@127.0.0.1:1"}
	require.NoError(t, s.receive(&protobufs.ServerToAgent{ConnectionSettings: m}))
	require.Equal(t, failed, s.report.connection.combined().Status)
	s.offers.notBefore = time.Time{}
	m.Hash, m.Opamp.DestinationEndpoint = []byte("h2"), "http://127.0.0.1:1/"
	s.settings.With = func(_ context.Context, o Offer) (Settings, error) { return Settings{Endpoint: o.Endpoint}, nil }
	require.NoError(t, s.receive(&protobufs.ServerToAgent{ConnectionSettings: m}))
	require.Equal(t, applying, s.report.connection.combined().Status)
	s.choose(t.Context())
	for _, entry := range logs.All() {
		require.NotContains(t, entry.Message, "s3cr3t")
		for _, v := range entry.ContextMap() {
			require.NotContains(t, v, "s3cr3t")
		}
	}
	require.NotContains(t, s.report.connection.combined().String(), "s3cr3t")
	info, err := os.Stat(s.offers.path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
}

// A server that has forgotten an agent refuses what it has given it: the agent comes with what it is configured with.
func TestGivenCredentialsAreRefused(t *testing.T) {
	t.Parallel()
	var forgotten atomic.Bool
	server := serveOffers(t)
	server.admit = func(w http.ResponseWriter, r *http.Request) bool {
		if forgotten.Load() && r.Header.Get("Authorization") == "given" {
			w.WriteHeader(http.StatusUnauthorized)
			return false
		}
		return true
	}
	local := plain(t, server.settings(t, HTTP))
	with := local.With
	local.With = func(ctx context.Context, o Offer) (Settings, error) {
		offered, err := with(ctx, o)
		offered.Client = &http.Client{Transport: header{"Authorization", o.Headers["Authorization"]}}
		return offered, err
	}
	offer := endpointOffer("h", server.url)
	offer.Opamp.Headers = &protobufs.Headers{Headers: []*protobufs.Header{{Key: "Authorization", Value: "given"}}}
	server.offers <- offer
	s := offerSession(t, t.TempDir(), local)
	s.Begin()
	_, at := server.status(t, 0, "h", applied)
	forgotten.Store(true)
	s.SetHealth(&protobufs.ComponentHealth{Healthy: true, Status: "another"})
	before := at + 1
	server.await(t, func() bool { return len(server.got) > before })
	require.NotNil(t, s.offers.stored.Applied, "the offer stays")
}

// header puts one into each request.
type header struct{ key, value string }

func (h header) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(h.key, h.value)
	return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
}
