package traffic

import (
	"context"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSinkLifecycle(t *testing.T) {
	t.Parallel()
	s, err := NewSink(SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, s.Shutdown(t.Context()), "without start")
	require.Empty(t, s.GRPCEndpoint())
	require.NoError(t, s.Start(t.Context()))
	require.ErrorContains(t, s.Start(t.Context()), "the sink is running")
	require.NotEqual(t, s.GRPCEndpoint(), s.HTTPEndpoint())
	sent := mustLoad(t, LoadConfig{Endpoints: []string{s.GRPCEndpoint()}, Traces: 1})
	require.NoError(t, s.Shutdown(t.Context()))
	require.NoError(t, s.Shutdown(t.Context()), "twice")

	require.NoError(t, s.Start(t.Context()), "again")
	require.Equal(t, sent.Sent, s.Summary().Spans, "the counts stay")
	mustLoad(t, LoadConfig{Endpoints: []string{s.HTTPEndpoint()}, Protocol: ProtocolHTTP, Traces: 1})
	require.Equal(t, 2*sent.Sent, s.Summary().Spans)
	require.NoError(t, s.Shutdown(t.Context()))
}

func TestSinkStartsAndStopsConcurrently(t *testing.T) {
	t.Parallel()
	s, err := NewSink(SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { _ = s.Start(t.Context()) }) // fails while it runs
		all.Go(func() { _ = s.Shutdown(t.Context()) })
	}
	all.Wait()
	require.NoError(t, s.Shutdown(t.Context()))
}

func TestSinkNamesThePortThatIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	for name, cfg := range map[string]SinkConfig{
		"grpc": {Listen: taken.Addr().String(), HTTPListen: "127.0.0.1:0"},
		"http": {Listen: "127.0.0.1:0", HTTPListen: taken.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewSink(cfg)
			require.NoError(t, err)
			require.ErrorContains(t, s.Start(t.Context()), taken.Addr().String())
			require.NoError(t, s.Shutdown(t.Context()))
		})
	}
}

func TestSinkHTTPPortIsTheNextOne(t *testing.T) {
	t.Parallel()
	s, err := NewSink(SinkConfig{Listen: "127.0.0.1:5317"})
	require.NoError(t, err)
	grpc, http, free, err := s.endpoints(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"127.0.0.1:5317", "127.0.0.1:5318"}, []string{grpc, http})
	require.False(t, free)
}

func TestSinkFailedStartFreesItsPorts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	grpc, _, err := freePorts(t.Context(), "127.0.0.1:0", "127.0.0.1:1")
	require.NoError(t, err)
	s, err := NewSink(SinkConfig{Listen: grpc, HTTPListen: taken.Addr().String()})
	require.NoError(t, err)
	require.Error(t, s.Start(t.Context()))
	again, err := net.Listen("tcp", grpc)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestSinkShutdownDoesNotWaitForTheDelay(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{ProtocolGRPC, ProtocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := startSink(t, SinkConfig{Delay: time.Hour})
			result := make(chan LoadSummary, 1)
			go func() {
				sent, _ := RunLoad(t.Context(), LoadConfig{
					Endpoints: []string{endpointOf(s, protocol)}, Protocol: protocol, Traces: 1, Services: 1, Timeout: time.Minute,
				})
				result <- sent
			}()
			require.Eventually(t, func() bool { return s.Summary().Requests == 1 }, 10*time.Second, time.Millisecond)
			require.NoError(t, s.Shutdown(t.Context()))
			require.Equal(t, int64(10), (<-result).Refused)
			require.Equal(t, int64(1), s.Summary().Rejected)
			require.Zero(t, s.Summary().Spans)
		})
	}
}

func TestSinkBehaviourChangesWhileItRuns(t *testing.T) {
	t.Parallel()
	s := startSink(t, SinkConfig{})
	load := func() LoadSummary { return mustLoad(t, LoadConfig{Endpoints: []string{s.GRPCEndpoint()}, Traces: 1}) }
	require.Equal(t, int64(10), load().Acknowledged)
	s.SetFailRatio(1)
	require.Equal(t, int64(10), load().Refused)
	s.SetFailRatio(0)
	s.SetDelay(30 * time.Millisecond)
	require.GreaterOrEqual(t, load().DurationMS.P50, 29.0)
	s.Reset()
	require.Zero(t, s.Summary().Requests)
	require.Empty(t, s.Summary().Runs)
}

func TestSinkShutdownEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := startSink(t, SinkConfig{})
	conn, err := net.Dial("tcp", s.HTTPEndpoint())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	// A request without its body keeps the connection busy; the server asks for the body when it has begun to handle it.
	_, err = conn.Write([]byte("POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n" +
		"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 100))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded)
}

func TestBadSinkConfigSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]SinkConfig{
		`listen must be host:port, got ""`:                   {},
		`listen must be host:port, got "x:y"`:                {Listen: "x:y"},
		`http-listen must be host:port, got "1"`:             {Listen: "x:1", HTTPListen: "1"},
		"http-listen must be set when listen has":            {Listen: "x:" + strconv.Itoa(65535)},
		"fail-ratio must be from 0 to 1, got 1.5":            {Listen: "x:1", FailRatio: 1.5},
		"delay must be 0 or more\nfail-ratio must be from 0": {Listen: "x:1", Delay: -1, FailRatio: -1},
	} {
		_, err := NewSink(cfg)
		require.ErrorContains(t, err, want)
	}
}
