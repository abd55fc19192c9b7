package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
)

// runningSink is a collie sink that has not ended yet.
type runningSink struct {
	grpc, http string
	out, err   *buffer
	stop       context.CancelFunc
	code       chan int
}

var listening = regexp.MustCompile(`listening on (\S+) \(gRPC\) and (\S+) \(HTTP\)`)

func startSink(t *testing.T, args ...string) *runningSink {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &runningSink{out: &buffer{}, err: &buffer{}, stop: cancel, code: make(chan int, 1)}
	go func() {
		s.code <- execute(ctx, streams{out: s.out, err: s.err}, append([]string{"sink", "--listen", "127.0.0.1:0"}, args...))
		close(s.code)
	}()
	t.Cleanup(func() {
		cancel()
		<-s.code // empty when end has read it, and closed
	})
	require.Eventually(t, func() bool { return listening.MatchString(s.err.String()) }, 10*time.Second, 5*time.Millisecond, "%s", s.err)
	found := listening.FindStringSubmatch(s.err.String())
	s.grpc, s.http = found[1], found[2]
	return s
}

func (s *runningSink) end() int {
	s.stop()
	return <-s.code
}

func TestLoadAndSinkAgree(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "load.json")
	sink := startSink(t, "-o", "json", "--acknowledged", file)
	code, stdout, stderr := collie(t.Context(), "load", "--endpoint", sink.grpc, "--traces", "50", "--header", "x-tenant=a", "-o", "json")
	require.Equal(t, exitDone, code, stderr)
	require.Empty(t, stderr)
	require.NoError(t, os.WriteFile(file, []byte(stdout), 0o600))
	var sent traffic.LoadSummary
	require.NoError(t, json.Unmarshal([]byte(stdout), &sent))
	require.Equal(t, int64(500), sent.Acknowledged)
	require.Equal(t, [][2]uint32{{0, 499}}, sent.AcknowledgedRanges)

	require.Equal(t, exitDone, sink.end(), sink.err)
	var got sinkResult
	require.NoError(t, json.Unmarshal([]byte(sink.out.String()), &got))
	require.Equal(t, int64(500), got.Distinct)
	require.Zero(t, *got.AcknowledgedMissing)
	require.NotContains(t, sink.out.String()+sink.err.String(), "\x1b", "no terminal, no control sequences")
}

func TestSinkFailsWhenAcknowledgedSpansAreMissing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, tt := range map[string]struct{ content, out, err string }{
		"missing":       {`{"run": "0badcafe", "acknowledged_ranges": [[0, 9], [20, 21]]}`, "acknowledged spans missing: 12\n", "12 acknowledged spans are missing\n"},
		"not a summary": {`[]`, "", "is not a summary written by collie load -o json\n"},
		"no file":       {"", "", "no such file or directory: write it with collie load -o json > "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(dir, name)
			if tt.content != "" {
				require.NoError(t, os.WriteFile(file, []byte(tt.content), 0o600))
			}
			sink := startSink(t, "--acknowledged", file)
			require.Equal(t, exitFailed, sink.end())
			require.Contains(t, sink.out.String(), tt.out)
			require.Contains(t, sink.err.String(), tt.err)
		})
	}
}

func TestLoadFailsWhenSpansAreRefused(t *testing.T) {
	t.Parallel()
	sink := startSink(t, "--fail-ratio", "1")
	code, stdout, stderr := collie(t.Context(), "load", "--endpoint", sink.http, "--protocol", "http", "--traces", "1")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "http 503 5")
	require.Contains(t, stderr, "collie load: 10 of 10 spans were not acknowledged (10 refused, 0 failed), last: ")
	require.Equal(t, exitDone, sink.end())
}

func TestSinkEndsByItself(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := collie(t.Context(), "sink", "--listen", "127.0.0.1:0", "--duration", "10ms")
	require.Equal(t, exitDone, code, stderr)
	require.Equal(t, "0 requests (0 rejected), 0 spans (0 duplicates, 0 gaps), 0 data points, 0 log records\n", stdout)
}

func TestSinkPortTaken(t *testing.T) {
	t.Parallel()
	sink := startSink(t)
	code, _, stderr := collie(t.Context(), "sink", "--listen", sink.grpc, "--http-listen", "127.0.0.1:0")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, sink.grpc)
	require.Contains(t, stderr, "choose other ports with --listen and --http-listen\n")
}
