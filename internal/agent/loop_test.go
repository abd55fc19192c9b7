package agent

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

// talk runs a conversation in virtual time and hands its link to the test.
func talk(t *testing.T, interval time.Duration, test func(t *testing.T, s *Session, l *fakeLink, began time.Time)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newTestSession(t)
		defer closeSession(t, s)
		s.settings.Interval = interval
		s.SetCapabilities(reportsAll | acceptsOpAMP)
		l := newFakeLink()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		began := time.Now()
		s.report.forget()
		go func() { done <- s.converse(ctx, s.current(), l) }()
		require.NotNil(t, <-l.out, "the first message")
		require.Zero(t, time.Since(began))
		test(t, s, l, began)
		cancel()
		<-done
	})
}

func TestHeartbeatCountsFromLastMessage(t *testing.T) {
	t.Parallel()
	talk(t, 30*time.Second, func(t *testing.T, s *Session, l *fakeLink, began time.Time) {
		require.Empty(t, has(<-l.out))
		require.Equal(t, 30*time.Second, time.Since(began))
		time.Sleep(10 * time.Second) // virtual
		setters["health"](s, "new")
		require.Equal(t, []string{"health"}, has(<-l.out))
		require.Equal(t, 40*time.Second, time.Since(began))
		require.Empty(t, has(<-l.out))
		require.Equal(t, 70*time.Second, time.Since(began))
		time.Sleep(10 * time.Second)
		l.in <- &protobufs.ServerToAgent{} // what the server sends does not count
		require.Empty(t, has(<-l.out))
		require.Equal(t, 100*time.Second, time.Since(began))
	})
}

func TestHeartbeatOffer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		configured, offeredAt time.Duration
		seconds               uint64
		beats                 []time.Duration
	}{
		"shorter":                  {30 * time.Second, 2 * time.Second, 5, []time.Duration{5 * time.Second, 10 * time.Second}},
		"shorter, already due":     {30 * time.Second, 20 * time.Second, 5, []time.Duration{20 * time.Second, 25 * time.Second}},
		"longer":                   {30 * time.Second, 2 * time.Second, 60, []time.Duration{60 * time.Second, 120 * time.Second}},
		"without a configured one": {0, 2 * time.Second, 5, []time.Duration{5 * time.Second, 10 * time.Second}},
		"0 keeps":                  {30 * time.Second, 2 * time.Second, 0, []time.Duration{30 * time.Second, 60 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			talk(t, tt.configured, func(t *testing.T, _ *Session, l *fakeLink, began time.Time) {
				time.Sleep(tt.offeredAt)
				l.in <- &protobufs.ServerToAgent{ConnectionSettings: offer(tt.seconds)}
				for _, at := range tt.beats {
					<-l.out
					require.Equal(t, at, time.Since(began))
				}
			})
		})
	}
}

func TestNoHeartbeat(t *testing.T) {
	t.Parallel()
	talk(t, 0, func(t *testing.T, s *Session, l *fakeLink, _ time.Time) {
		time.Sleep(24 * time.Hour)
		require.Empty(t, l.out)
		setters["health"](s, "new")
		<-l.out
		time.Sleep(24 * time.Hour)
		require.Empty(t, l.out)
	})
}

// TestServerThatNeverHasEnough: whatever it asks for, and however often, it gets what it asked for once a second.
func TestServerThatNeverHasEnough(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string]uint64{"full state": 1, "components": 2, "both": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			talk(t, 0, func(t *testing.T, s *Session, l *fakeLink, _ time.Time) {
				setters["components"](s, "new")
				<-l.out
				last := map[string]time.Time{} // when a message had a part last
				for range 10 * 100 {
					l.in <- &protobufs.ServerToAgent{Flags: flags}
					time.Sleep(9 * time.Millisecond) // virtual
					for len(l.out) > 0 {
						m := <-l.out
						for _, part := range has(m) {
							if part == "custom" && flags&1 != 0 || part == "details" && flags&2 != 0 {
								require.GreaterOrEqual(t, time.Since(last[part]), fullReportEvery-9*time.Millisecond, part)
								last[part] = time.Now()
							}
						}
					}
				}
				sent, _ := s.Messages()
				require.LessOrEqual(t, sent, int64(2+2*10))
				require.GreaterOrEqual(t, sent, int64(2+8))
			})
		})
	}
}

func TestConverseEnds(t *testing.T) {
	t.Parallel()
	unavailable := &protobufs.ServerToAgent{ErrorResponse: refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, time.Minute)}
	for name, tt := range map[string]struct {
		end   func(s *Session, l *fakeLink, cancel func())
		check func(t *testing.T, err error)
	}{
		"lost":        {func(_ *Session, l *fakeLink, _ func()) { close(l.gone) }, func(t *testing.T, err error) { require.ErrorIs(t, err, io.EOF) }},
		"settings":    {func(s *Session, _ *fakeLink, _ func()) { s.Use(s.log, Settings{Key: "other"}, s.restart) }, func(t *testing.T, err error) { require.ErrorIs(t, err, errSettingsChanged) }},
		"unavailable": {func(_ *Session, l *fakeLink, _ func()) { l.in <- unavailable }, func(t *testing.T, err error) { require.Equal(t, time.Minute, retryAfter(err)) }},
		"context":     {func(_ *Session, _ *fakeLink, cancel func()) { cancel() }, func(t *testing.T, err error) { require.ErrorIs(t, err, context.Canceled) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, l := newTestSession(t), newFakeLink()
			defer closeSession(t, s)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- s.converse(ctx, Settings{}, l) }()
			<-l.out
			tt.end(s, l, cancel)
			select {
			case err := <-done:
				tt.check(t, err)
			case <-time.After(patience):
				require.FailNow(t, "the conversation goes on")
			}
		})
	}
}

// TestGoodbyeAfterAMessage: a message that begins as the session ends does not take the connection from under the goodbye.
func TestGoodbyeAfterAMessage(t *testing.T) {
	t.Parallel()
	for name, transport := range map[string]Transport{"websocket": WebSocket, "http": HTTP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, s := serve(t, &fakeServer{}), newTestSession(t)
			defer closeSession(t, s)
			var l link = newPoller(s, f.settings(t, HTTP))
			if transport == WebSocket {
				ws, err := dialWebSocket(t.Context(), f.settings(t, WebSocket))
				require.NoError(t, err)
				l = ws
			}
			defer l.close(t.Context())
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			const messages = 5 // a WebSocket that heeds the context does not fail each time
			for range messages {
				sent, _, err := s.send(ended, l, true)
				require.NoError(t, err)
				require.True(t, sent)
			}
			s.disconnect(t.Context(), l)
			all := f.messages(t, messages+1)
			require.NotNil(t, all[messages].AgentDisconnect)
			require.EqualValues(t, messages, all[messages].SequenceNum)
		})
	}
}

func TestOutlive(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ ends, want time.Duration }{
		"the limit":             {time.Hour, dialLimit},
		"the grace":             {10 * time.Second, 10*time.Second + exchangeGrace},
		"the limit ends it all": {dialLimit - exchangeGrace/2, dialLimit},
		"ended before":          {0, exchangeGrace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tt.ends)
				defer cancel()
				began := time.Now()
				longer, done := outlive(ctx, exchangeGrace, dialLimit)
				defer done()
				<-longer.Done()
				require.Equal(t, tt.want, time.Since(began))
			})
		})
	}
}
