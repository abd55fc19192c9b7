package agent

import (
	"context"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/opampcustommessages"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

func TestReportCompressesAndPutsBack(t *testing.T) {
	t.Parallel()
	s, now := newTestSession(t), time.Now()
	s.SetCapabilities(protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth)
	health := func(status string) *protobufs.ComponentHealth { return &protobufs.ComponentHealth{Status: status} }
	s.SetHealth(health("one"))
	out, _ := s.report.next(now, false)
	require.Equal(t, "one", out.message.Health.Status)
	require.Nil(t, out.message.AgentDescription)

	s.SetHealth(health("one"))
	out, _ = s.report.next(now, false)
	require.Nil(t, out, "an equal value is no news")
	out, _ = s.report.next(now, true)
	require.Nil(t, out.message.Health, "a heartbeat")

	s.SetHealth(health("two"))
	out, _ = s.report.next(now, false)
	s.report.putBack(out)
	out, _ = s.report.next(now, false)
	require.Equal(t, "two", out.message.Health.Status, "what did not get through is sent again")
}

func TestFullReportsOnceASecond(t *testing.T) {
	t.Parallel()
	s, now := newTestSession(t), time.Now()
	s.report.lack(allParts)
	out, later := s.report.next(now, false)
	require.Equal(t, allParts, out.parts)
	require.Zero(t, later)
	s.report.lack(allParts)
	out, later = s.report.next(now.Add(300*time.Millisecond), false)
	require.Nil(t, out)
	require.Equal(t, 700*time.Millisecond, later)
	out, _ = s.report.next(now.Add(fullReportEvery), false)
	require.Equal(t, allParts, out.parts)
	s.report.forget()
	out, _ = s.report.next(now.Add(fullReportEvery), false)
	require.Equal(t, allParts, out.parts, "a new connection does not wait")
}

func TestCustomMessages(t *testing.T) {
	t.Parallel()
	s := newTestSession(t)
	_, err := s.Custom.Register("")
	require.Error(t, err)
	h, err := s.Custom.Register("org.example/v1", opampcustommessages.WithMaxQueuedMessages(2))
	require.NoError(t, err)
	out, _ := s.report.next(time.Now(), false)
	require.Equal(t, []string{"org.example/v1"}, out.message.CustomCapabilities.Capabilities)

	for range 3 {
		require.NoError(t, s.receive(&protobufs.ServerToAgent{CustomMessage: &protobufs.CustomMessage{Capability: "org.example/v1", Type: "t"}}))
	}
	require.Len(t, h.Message(), 2)
	require.EqualValues(t, 1, s.Custom.Dropped(), "the queue is bounded, and what did not fit is counted")

	sent, err := h.SendMessage("hello", []byte("world"))
	require.NoError(t, err)
	_, err = h.SendMessage("too", nil)
	require.ErrorIs(t, err, types.ErrCustomMessagePending)
	out, _ = s.report.next(time.Now(), false)
	require.Equal(t, "hello", out.message.CustomMessage.Type)
	close(out.custom.sent)
	<-sent
	_, err = h.SendMessage("again", nil)
	require.NoError(t, err)
	_, _ = s.report.next(time.Now(), false)

	h.Unregister()
	_, err = h.SendMessage("late", nil)
	require.ErrorIs(t, err, errUnregistered)
	out, _ = s.report.next(time.Now(), false)
	require.NotNil(t, out.message.CustomCapabilities, "an absent field would not clear the list")
	require.Empty(t, out.message.CustomCapabilities.Capabilities)
}

func TestSessionsOutliveReloads(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	opts := Options{StorageDirectory: t.TempDir(), Logger: zap.NewNop()}
	first, err := Acquire("opamp/a", opts, Settings{}, func() {})
	require.NoError(t, err)
	require.NoError(t, Release(ctx, "opamp/a", true))
	again, err := Acquire("opamp/a", opts, Settings{}, func() {})
	require.NoError(t, err)
	require.Same(t, first, again)

	other, err := Acquire("opamp/b", opts, Settings{}, func() {})
	require.NoError(t, err)
	require.NotSame(t, first, other)
	moved := opts
	moved.StorageDirectory = t.TempDir()
	replaced, err := Acquire("opamp/a", moved, Settings{}, func() {})
	require.NoError(t, err)
	require.NotSame(t, first, replaced)

	require.NoError(t, Release(ctx, "opamp/a", false))
	require.NoError(t, Release(ctx, "opamp/b", false))
	require.NoError(t, Release(ctx, "opamp/b", false), "twice does no harm")
}
