package control

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// renamed asks for another UID and goes on under it.
func (a *testAgent) renamed() {
	a.w.t.Helper()
	answer := a.send(&protobufs.AgentToServer{
		Capabilities: a.full.Capabilities, Flags: uint64(protobufs.AgentToServerFlags_AgentToServerFlags_RequestInstanceUid),
	})
	uid, err := uuid.FromBytes(answer.GetAgentIdentification().GetNewInstanceUid())
	require.NoError(a.w.t, err)
	a.uid, a.token = uid, ""
	require.Nil(a.w.t, a.hello().ErrorResponse)
}

// What failed on an agent is not offered to it again because it has another UID.
func TestRenamedAgentKeepsItsHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	w.saved("base", "", "bad")
	id := w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	bad := a.hash()
	a.become(protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, "broken")
	w.untilRollout(id, fleet.RolloutTakenBack)
	a.untilOffered()
	a.applied()
	was := a.uid
	a.renamed()
	require.NotEqual(t, was, a.uid)
	stored := a.stored()
	_, refused := stored.RemoteConfig.Refusal(bad)
	require.True(t, refused, "%+v", stored.RemoteConfig)
	require.True(t, stored.Connected)
	w.until("one row", func() (bool, any) {
		_, err := w.db.Agent(t.Context(), was.String())
		return err != nil, nil
	})
}

// An agent that is given another UID needs neither another use of its enrolment token, nor is it locked out with a credential for the
// UID before.
func TestRenamedAgentKeepsItsCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withTokens(t))
	a, _ := w.enrolled(1)
	a.hello()
	a.renamed()
	require.Nil(t, a.poll().ErrorResponse)

	token, hash := a.untilCredential()
	a.header.Set("Authorization", token)
	a.took(hash)
	a.renamed()
	w.restart()
	require.Nil(t, a.hello().ErrorResponse)
	next, hash := a.untilCredential()
	require.NotEqual(t, token, next, "one for its new UID")
	a.header.Set("Authorization", next)
	a.took(hash)
	require.Nil(t, a.poll().ErrorResponse)
	other := w.agent(nil)
	other.header = a.header
	require.NotNil(t, other.hello().ErrorResponse)
}

// An agent whose row was deleted, and which the endpoint remembers, is known again in full when it comes back.
func TestPrunedAgentComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Keep.Agents = time.Hour })
	a := w.agent(map[string]string{"service.name": "x"})
	a.hello()
	a.goodbye()
	before := a.stored()
	w.mu.Lock()
	w.agents[a.uid].agent.LastSeen = time.Now().Add(-2 * time.Hour)
	w.mu.Unlock()
	require.NoError(t, w.prune(t.Context()))
	require.NoError(t, w.bury(t.Context()))
	_, err := w.db.Agent(t.Context(), a.uid.String())
	require.ErrorIs(t, err, store.ErrNotFound)
	a.hello()
	after := a.stored()
	require.Equal(t, before.Identifying, after.Identifying)
	require.Equal(t, before.Capabilities, after.Capabilities)
	require.NotNil(t, after.Health)
}

// The same with a heartbeat first: the agent is asked for everything, since the endpoint keeps nothing but hashes.
func TestForgottenAgentSendsAHeartbeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(map[string]string{"service.name": "x"})
	a.hello()
	before := a.stored()
	w.mu.Lock()
	delete(w.agents, a.uid)
	w.mu.Unlock()
	for range 2 {
		answer := a.poll()
		require.NotZero(t, answer.Flags&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState))
	}
	require.Zero(t, a.hello().Flags)
	after := a.stored()
	require.Equal(t, before.Identifying, after.Identifying)
	require.Equal(t, before.Capabilities, after.Capabilities)
	require.NotNil(t, after.Health)
	require.Zero(t, a.poll().Flags)
}

// A write that fails while its agent leaves does not bring the row back.
func TestFailedWriteOfAnAgentThatLeft(t *testing.T) {
	t.Parallel()
	blocking := &blockingStore{entered: make(chan struct{}, 1), leave: make(chan struct{})}
	w := newWorld(t, func(o *Options) { blocking.Store, o.Store = o.Store, blocking })
	a := w.agent(nil)
	a.hello()
	a.stored()
	a.goodbye()
	blocking.block.Store(true)
	go func() { _ = w.save(context.Background()) }()
	<-blocking.entered
	w.mu.Lock()
	w.drop(w.agents[a.uid])
	w.mu.Unlock()
	blocking.block.Store(false)
	close(blocking.leave)
	require.NoError(t, w.bury(t.Context()))
	require.NoError(t, w.save(t.Context()))
	_, err := w.db.Agent(t.Context(), a.uid.String())
	require.ErrorIs(t, err, store.ErrNotFound)
}

// An agent of which messages were lost is not offered what it may have failed with meanwhile.
func TestNothingIsOfferedBeforeTheFullState(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	a := w.agent(nil)
	a.hello()
	w.saved("base", "", "bad")
	w.rollOut("base", fleet.RolloutSpec{})
	a.untilOffered()
	w.restart()
	a.poll() // it failed meanwhile, and tells when it is asked
	w.round(t.Context())
	a.poll()
	require.Equal(t, 1, a.offers)
	a.full.RemoteConfigStatus = &protobufs.RemoteConfigStatus{
		LastRemoteConfigHash: a.config.ConfigHash, Status: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED, ErrorMessage: "broken",
	}
	bad := a.hash()
	a.hello()
	a.untilOffered()
	require.NotEqual(t, bad, a.hash(), "what was before")
}
