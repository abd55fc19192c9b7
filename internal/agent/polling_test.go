package agent

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-1": 0, "7": 7 * time.Second, "99999999": maxRetryAfter,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		require.Equal(t, want, parseRetryAfter(value, now), value)
	}
}

// polled is what a server without a network has seen.
type polled struct {
	mu  *sync.Mutex // guards all below
	at  []time.Time
	got []*protobufs.AgentToServer
	uid []string
}

// seen is what there is when all is at rest.
func (p *polled) seen() polled {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p
}

// poll runs a session over HTTP in virtual time until test returns.
func poll(t *testing.T, answer func(n int, r *http.Request) (*http.Response, error), test func(t *testing.T, s *Session, p *polled)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &polled{mu: &sync.Mutex{}}
		s := openSession(t, Settings{Transport: HTTP, Endpoint: "http://server.test/v1/opamp", Interval: 30 * time.Second, MaxMessage: 1 << 20})
		s.settings.Client = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			m := &protobufs.AgentToServer{}
			if err := proto.Unmarshal(body, m); err != nil {
				return nil, err
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.at, p.got, p.uid = append(p.at, time.Now()), append(p.got, m), append(p.uid, r.Header.Get("OpAMP-Instance-UID"))
			if r.Method != http.MethodPost || r.Header.Get("Content-Type") != protobufType {
				return response(http.StatusBadRequest, ""), nil
			}
			return answer(len(p.got)-1, r)
		})}
		s.Begin()
		test(t, s, p)
		closeSession(t, s)
	})
}

func ack(int, *http.Request) (*http.Response, error) { return response(http.StatusOK, ""), nil }

func TestPollingInterval(t *testing.T) {
	t.Parallel()
	poll(t, ack, func(t *testing.T, s *Session, p *polled) {
		began := time.Now()
		require.Equal(t, everything, has(p.seen().got[0]))
		time.Sleep(40 * time.Second) // virtual
		setters["health"](s, "new")
		time.Sleep(31 * time.Second)
		closeSession(t, s)
		seen := p.seen()
		var at []time.Duration
		for i := range seen.at {
			at = append(at, seen.at[i].Sub(began))
			require.EqualValues(t, i, seen.got[i].SequenceNum)
			require.Equal(t, s.InstanceUID().String(), seen.uid[i])
		}
		require.Equal(t, []time.Duration{0, 30 * time.Second, 40 * time.Second, 70 * time.Second, 71 * time.Second}, at)
		require.Equal(t, []string{"health"}, has(seen.got[2]))
		require.NotNil(t, seen.got[4].AgentDisconnect)
	})
}

// TestPollingFailures: what the first request brings is not believed, and the second one is full again.
func TestPollingFailures(t *testing.T) {
	t.Parallel()
	date := func(after time.Duration) string { return time.Now().Add(after).UTC().Format(http.TimeFormat) }
	body := string(encoded(loud()))
	for name, tt := range map[string]struct {
		first       func() (*http.Response, error)
		least, most time.Duration
	}{
		"lost":             {func() (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"503":              {func() (*http.Response, error) { return response(503, body), nil }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"503 with seconds": {func() (*http.Response, error) { return response(503, "", "Retry-After", "120"), nil }, 2 * time.Minute, 133 * time.Second},
		"429 with a date":  {func() (*http.Response, error) { return response(429, "", "Retry-After", date(time.Minute)), nil }, time.Minute, 67 * time.Second},
		"503 for a year":   {func() (*http.Response, error) { return response(503, "", "Retry-After", "31536000"), nil }, time.Hour, 67 * time.Minute},
		"401":              {func() (*http.Response, error) { return response(401, body), nil }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"no content":       {func() (*http.Response, error) { return response(204, ""), nil }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"garbage":          {func() (*http.Response, error) { return response(200, body[:len(body)-3]), nil }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"with a header":    {func() (*http.Response, error) { return response(200, "\x00"+body), nil }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"endless":          {func() (*http.Response, error) { r := response(200, ""); r.Body = endless{}; return r, nil }, 750 * time.Millisecond, 1250 * time.Millisecond},
		"unavailable": {func() (*http.Response, error) {
			return response(200, string(encoded(&protobufs.ServerToAgent{
				ErrorResponse: refusal(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, time.Minute),
			}))), nil
		}, time.Minute, 67 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			poll(t, func(n int, r *http.Request) (*http.Response, error) {
				if n == 0 {
					return tt.first()
				}
				return ack(n, r)
			}, func(t *testing.T, s *Session, p *polled) {
				require.Len(t, p.seen().got, 1)
				require.False(t, s.Connected())
				uid := s.InstanceUID()
				time.Sleep(tt.most + time.Second)
				seen := p.seen()
				require.GreaterOrEqual(t, len(seen.got), 2)
				require.GreaterOrEqual(t, seen.at[1].Sub(seen.at[0]), tt.least)
				require.LessOrEqual(t, seen.at[1].Sub(seen.at[0]), tt.most)
				require.Equal(t, everything, has(seen.got[1]))
				require.True(t, s.Connected())
				require.Equal(t, uid, s.InstanceUID())
				require.Zero(t, s.heartbeat)
			})
		})
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }
func (endless) Close() error               { return nil }

// TestPollingAnswersAreAllSeen: an answer is acted on even when more is waiting to be sent.
func TestPollingAnswersAreAllSeen(t *testing.T) {
	t.Parallel()
	restart := string(encoded(&protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{}}))
	poll(t, func(int, *http.Request) (*http.Response, error) { return response(200, restart), nil }, func(t *testing.T, s *Session, p *polled) {
		var restarts atomic.Int64
		s.Use(zap.NewNop(), s.current(), func() { restarts.Add(1) })
		s.SetCapabilities(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand)
		before := len(p.seen().got)
		restarts.Store(0)
		for i := range 20 {
			h, err := s.Custom.Register("org.example")
			require.NoError(t, err)
			_, err = h.SendMessage(strconv.Itoa(i), nil)
			require.NoError(t, err)
		}
		answers := len(p.seen().got) - before
		require.GreaterOrEqual(t, answers, 20)
		require.EqualValues(t, answers, restarts.Load())
	})
}

func TestPollingGzip(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	for name, tt := range map[string]struct {
		size int
		want error
	}{"at the limit": {limit, nil}, "above": {limit + 1, errMalformed}, "a bomb": {64 << 20, errMalformed}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head := encoded(&protobufs.ServerToAgent{CustomMessage: &protobufs.CustomMessage{Data: make([]byte, limit-64)}})
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				defer func() { _ = z.Close() }()
				if tt.want == nil { // a valid message of exactly that size: an unknown field fills it up
					_, _ = z.Write(head)
					rest := tt.size - len(head)
					tag := protowire.AppendTag(nil, 500, protowire.BytesType)
					_, _ = z.Write(protowire.AppendBytes(tag, make([]byte, rest-len(tag)-1)))
					return
				}
				_, _ = io.Copy(z, io.LimitReader(endless{}, int64(tt.size)))
			}))
			defer server.Close()
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			s := newTestSession(t)
			defer closeSession(t, s)
			p := newPoller(s, Settings{Endpoint: server.URL, Client: client, MaxMessage: limit})
			err := p.exchange(t.Context(), nil)
			if tt.want != nil {
				require.ErrorIs(t, err, tt.want)
				require.ErrorContains(t, err, strconv.Itoa(limit))
				require.Empty(t, p.messages)
				return
			}
			require.NoError(t, err)
			require.Len(t, p.messages, 1)
		})
	}
}
