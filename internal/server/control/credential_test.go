package control

import (
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
)

func withTokens(t *testing.T) func(*Options) {
	return func(o *Options) {
		keeper, err := auth.New(t.Context(), o.Store, nil)
		require.NoError(t, err)
		o.Auth, o.Credentials = keeper, true
	}
}

// enrolled is an agent that takes connection settings, with a token of so many uses.
func (w *world) enrolled(uses int) (a *testAgent, secret string) {
	secret, _, err := w.auth.Create(w.t.Context(), "test", auth.Request{Role: apiv1.RoleAgent, Uses: uses})
	require.NoError(w.t, err)
	a = w.agent(nil)
	a.full.Capabilities |= uint64(fleet.AcceptsOpAMPConnectionSettings | fleet.ReportsConnectionSettingsStatus)
	a.header.Set("Authorization", "Bearer "+secret)
	return a, secret
}

func offeredToken(m *protobufs.ServerToAgent) string {
	for _, h := range m.GetConnectionSettings().GetOpamp().GetHeaders().GetHeaders() {
		if h.Key == "Authorization" {
			return h.Value
		}
	}
	return ""
}

func (a *testAgent) untilCredential() (token string, hash []byte) {
	a.w.t.Helper()
	a.w.until("a credential", func() (bool, any) {
		a.poll()
		return a.token != "", a.stored().ConnectionSettings
	})
	token, a.token = a.token, ""
	return token, a.tokenHash
}

func (a *testAgent) took(hash []byte) {
	a.full.ConnectionSettingsStatus = &protobufs.ConnectionSettingsStatus{
		LastConnectionSettingsHash: hash, Status: protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED,
	}
	a.hello()
}

// An agent comes with an enrolment token, is given a credential of its own, and that alone is good for it from then on.
func TestEnrolment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTokens(t))
	a, enrolment := w.enrolled(1)
	require.Equal(t, "http://127.0.0.1:4320/v1/opamp", func() string {
		a.hello()
		var endpoint string
		w.until("an offer", func() (bool, any) {
			o := a.poll().GetConnectionSettings().GetOpamp()
			endpoint = o.GetDestinationEndpoint()
			require.True(t, o == nil || o.HeartbeatIntervalSeconds == 30, "0 would end heartbeats")
			return o != nil, nil
		})
		return endpoint
	}())
	w.restart() // the secret is gone; another one is made
	a.hello()
	token, hash := a.untilCredential()
	require.NotContains(t, token, enrolment)
	a.header.Set("Authorization", token)
	a.took(hash)
	stored := a.stored()
	require.Equal(t, fleet.Applied, stored.ConnectionSettings.Status)
	require.Equal(t, hex.EncodeToString(hash), stored.ConnectionSettings.ReportedHash)
	for range 5 {
		require.Nil(t, a.poll().ConnectionSettings, "there is nothing more to offer")
	}
	tokens, err := w.auth.List(t.Context())
	require.NoError(t, err)
	own := 0
	for _, x := range tokens {
		if x.Agent == a.uid.String() {
			own++
		}
	}
	require.Equal(t, 1, own, "what was not used is revoked")

	other, _ := w.enrolled(-1)
	other.header.Set("Authorization", token)
	require.Equal(t, protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, other.hello().GetErrorResponse().GetType(), "another agent's credential")
	second := w.agent(nil)
	second.header.Set("Authorization", "Bearer "+enrolment)
	require.NotNil(t, second.hello().ErrorResponse, "the enrolment token was good for one")
	require.NotContains(t, w.agents, second.uid)
}

func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTokens(t))
	a, _ := w.enrolled(-1)
	a.hello()
	first, hash := a.untilCredential()
	a.header.Set("Authorization", first)
	a.took(hash)
	require.NoError(t, w.RotateCredential(t.Context(), "test", a.uid.String()))
	second, hash := a.untilCredential()
	require.NotEqual(t, first, second)
	a.poll() // the old one is good until the new one is used
	a.header.Set("Authorization", second)
	a.took(hash)
	r := httptest.NewRequest(http.MethodPost, "/v1/opamp", nil)
	r.Header.Set("Authorization", first)
	_, err := w.Authenticate(r)
	var refused *opampserver.StatusError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, http.StatusUnauthorized, refused.Code)
	require.ErrorIs(t, w.RotateCredential(t.Context(), "test", uuid.NewString()), store.ErrNotFound)
	require.Contains(t, w.kinds(a.uid.String()), fleet.CredentialIssued)
	events, err := w.db.ListEvents(t.Context(), store.EventQuery{Limit: 1000})
	require.NoError(t, err)
	for _, e := range events {
		require.NotContains(t, e.Message, strings.TrimPrefix(second, "Bearer "))
	}
}

// A revoked credential ends what is connected with it, too.
func TestRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTokens(t))
	a, _ := w.enrolled(-1)
	a.full.Capabilities = uint64(everything)
	p, err := w.Authenticate(&http.Request{Header: a.header, RemoteAddr: "127.0.0.1:1"})
	require.NoError(t, err)
	require.NoError(t, w.Admit(p, a.uid))
	require.NoError(t, w.auth.Revoke(t.Context(), "test", p.Name))
	require.ErrorContains(t, w.Admit(p, a.uid), "revoked")
	require.ErrorIs(t, (&Control{}).RotateCredential(t.Context(), "test", a.uid.String()), api.ErrNoTokens)
}

func TestConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(map[string]string{"env": "prod"})
	a.full.Capabilities |= uint64(fleet.AcceptsOpAMPConnectionSettings | fleet.ReportsConnectionSettingsStatus | fleet.ReportsOwnMetrics)
	a.hello()
	save := func(c apiv1.Connection) error { return w.SaveConnection(t.Context(), "test", c) }
	require.NoError(t, save(apiv1.Connection{Name: "pace", ConnectionOffer: apiv1.ConnectionOffer{OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "5s"}}}))
	require.NoError(t, save(apiv1.Connection{Name: "own", Selector: "env=prod", Priority: 1, ConnectionOffer: apiv1.ConnectionOffer{
		OwnMetrics: &apiv1.Destination{Endpoint: "http://127.0.0.1:9/v1/metrics", Headers: map[string]string{"X-Key": "s3cret"}},
		OwnTraces:  &apiv1.Destination{Endpoint: "http://127.0.0.1:9/v1/traces"},
	}}))
	var offer *protobufs.ConnectionSettingsOffers
	w.until("an offer of both", func() (bool, any) {
		if o := a.poll().ConnectionSettings; o != nil {
			offer = o
		}
		return offer.GetOwnMetrics() != nil && offer.GetOpamp() != nil, offer
	})
	require.EqualValues(t, 5, offer.Opamp.HeartbeatIntervalSeconds)
	require.Equal(t, "X-Key", offer.OwnMetrics.Headers.Headers[0].Key)
	require.Nil(t, offer.OwnTraces, "it does not report any")
	a.took(offer.Hash)
	require.Nil(t, a.poll().ConnectionSettings)
	w.restart()
	a.hello()
	for range 5 {
		require.Nil(t, a.poll().ConnectionSettings, "it has it already")
	}

	require.NoError(t, save(apiv1.Connection{Name: "own", Selector: "env=prod", ConnectionOffer: apiv1.ConnectionOffer{
		OwnMetrics: &apiv1.Destination{Endpoint: "http://127.0.0.1:9/v1/metrics", Headers: map[string]string{"X-Key": Redacted}},
	}}))
	require.ErrorContains(t, save(apiv1.Connection{Name: "own", ConnectionOffer: apiv1.ConnectionOffer{
		OwnMetrics: &apiv1.Destination{Endpoint: "http://thief.example.com", Headers: map[string]string{"X-Key": Redacted}},
	}}), "give the value again", "nobody has a secret sent elsewhere that he may not see")
	all, err := w.Connections(t.Context())
	require.NoError(t, err)
	require.Equal(t, "s3cret", all[0].OwnMetrics.Headers["X-Key"], "what came back redacted is kept")
	require.NoError(t, w.DeleteConnection(t.Context(), "test", "own"))
	require.ErrorIs(t, w.DeleteConnection(t.Context(), "test", "own"), store.ErrNotFound)

	for name, bad := range map[string]apiv1.ConnectionOffer{
		"nothing":            {},
		"heartbeat":          {OpAMP: &apiv1.OpAMPSettings{HeartbeatInterval: "0s"}},
		"endpoint":           {OpAMP: &apiv1.OpAMPSettings{Endpoint: "ftp://x"}},
		"credentials":        {OwnLogs: &apiv1.Destination{Endpoint: "http://a:b@c"}},
		"headers":            {OpAMP: &apiv1.OpAMPSettings{Headers: map[string]string{"a": "b"}}},
		"self without":       {OwnMetrics: &apiv1.Destination{Endpoint: "self"}},
		"nothing was stored": {OwnLogs: &apiv1.Destination{Endpoint: "http://x/y", Headers: map[string]string{"a": Redacted}}},
	} {
		require.ErrorIs(t, save(apiv1.Connection{Name: "x", ConnectionOffer: bad}), store.ErrInvalid, name)
	}
	require.ErrorIs(t, w.RotateCredential(t.Context(), "test", a.uid.String()), api.ErrNoTokens)
}

// Agents are offered the address at which they came: with TLS if there was any, and polled if they polled.
func TestAddressOfOffers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, public string
		header       http.Header
		want         string
	}{
		{"polling", "", nil, "http://example.com/v1/opamp"},
		{"websocket", "", http.Header{"Upgrade": {"websocket"}}, "ws://example.com/v1/opamp"},
		{"behind TLS", "", http.Header{"Upgrade": {"websocket"}, "X-Forwarded-Proto": {"https"}}, "wss://example.com/v1/opamp"},
		{"polling behind TLS", "", http.Header{"X-Forwarded-Proto": {"https"}}, "https://example.com/v1/opamp"},
		{"public", "wss://a:1", http.Header{"Upgrade": {"websocket"}}, "wss://a:1/v1/opamp"},
		{"polling a public one", "wss://a:1", nil, "https://a:1/v1/opamp"},
	} {
		c := &Control{publicURL: test.public}
		require.Equal(t, test.want, c.reached(&http.Request{Host: "example.com", Header: test.header}).url, test.name)
	}
}

// An agent is not displaced by whoever comes in its name with an enrolment token while it is away: when it is back, the other one's
// credential ends. One that has lost its credential gets another all the same.
func TestCredentialIsNotDisplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTokens(t))
	a, _ := w.enrolled(-1)
	a.hello()
	own, hash := a.untilCredential()
	a.header.Set("Authorization", own)
	a.took(hash)
	a.goodbye()
	w.restart()
	other, _ := w.enrolled(-1)
	other.uid = a.uid
	other.hello()
	taken, hash := other.untilCredential()
	require.Contains(t, w.kinds(a.uid.String()), fleet.AgentContended)
	other.header.Set("Authorization", taken)
	other.took(hash)
	require.Nil(t, other.poll().ErrorResponse, "it may be the agent, reinstalled")
	other.goodbye()

	a.seq = 0
	require.Nil(t, a.hello().ErrorResponse)
	refused := httptest.NewRequest(http.MethodPost, "/v1/opamp", nil)
	refused.Header = other.header
	_, err := w.Authenticate(refused)
	require.Error(t, err)
	require.Nil(t, a.poll().ErrorResponse)

	require.NoError(t, w.RotateCredential(t.Context(), "test", a.uid.String()))
	next, hash := a.untilCredential()
	a.header.Set("Authorization", next)
	a.took(hash)
	refused.Header.Set("Authorization", own)
	_, err = w.Authenticate(refused)
	require.Error(t, err, "a rotation ends it")
}

// Forgotten agents need an enrolment token again.
func TestForgottenAgentsCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) {
		withTokens(t)(o)
		o.Keep.Agents = time.Hour
	})
	revoked := func(a *testAgent) bool {
		r := httptest.NewRequest(http.MethodPost, "/v1/opamp", nil)
		r.Header = a.header
		_, err := w.Authenticate(r)
		return err != nil
	}
	owner := func() *testAgent {
		a, _ := w.enrolled(-1)
		a.hello()
		own, hash := a.untilCredential()
		a.header.Set("Authorization", own)
		a.took(hash)
		a.goodbye()
		a.stored()
		return a
	}
	a, b, c := owner(), owner(), owner()
	require.NoError(t, w.Forget(t.Context(), "test", a.uid.String()))
	w.mu.Lock()
	w.agents[b.uid].agent.LastSeen = time.Now().Add(-2 * time.Hour)
	w.mu.Unlock()
	require.NoError(t, w.prune(t.Context()))
	require.True(t, revoked(a), "forgotten")
	require.True(t, revoked(b), "deleted")
	require.False(t, revoked(c))
}
