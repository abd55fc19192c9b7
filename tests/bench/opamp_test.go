package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// BenchmarkOpAMPIdle measures what the extension costs while it is connected and nothing happens: heap after a collection,
// of a Collector with it and of one without.
func BenchmarkOpAMPIdle(b *testing.B) {
	healthy := make(chan struct{}, 64)
	handler, withConn, err := server.New(nil).Attach(server.Settings{Callbacks: types.Callbacks{
		OnConnecting: func(*http.Request) types.ConnectionResponse {
			return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
				OnMessage: func(_ context.Context, _ types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
					if m.Health.GetHealthy() {
						healthy <- struct{}{}
					}
					return &protobufs.ServerToAgent{InstanceUid: m.InstanceUid}
				},
			}}
		},
	}})
	require.NoError(b, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	s.Config.ConnContext = withConn
	s.Start()
	defer s.Close()

	for b.Loop() {
		heap := func(opamp bool) float64 {
			pprof := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(b, "127.0.0.1"))
			config := "extensions: {pprof: {endpoint: \"" + pprof + "\"}}\nservice: {extensions: [health_check, pprof]}\n"
			if opamp {
				config = "extensions: {pprof: {endpoint: \"" + pprof + "\"}, opamp: {storage: {directory: " + b.TempDir() + "}, server: {ws: {endpoint: \"ws" +
					strings.TrimPrefix(s.URL, "http") + "/v1/opamp\"}}}}\nservice: {extensions: [health_check, pprof, opamp]}\n"
			}
			c := harness.Start(b, harness.Options{Configs: []string{"quickstart.yaml", overlay(b, "pprof", config)}})
			if opamp {
				<-healthy
			}
			time.Sleep(2 * time.Second) // what the start has left behind settles
			bytes := heapOf(b, pprof)
			c.Stop()
			return bytes
		}
		without, with := heap(false), heap(true)
		b.ReportMetric((with-without)/1e6, "MB-heap")
		b.Logf("heap in use after a collection: %.2f MB without the extension, %.2f MB with it connected and idle: %.2f MB", without/1e6, with/1e6, (with-without)/1e6)
	}
}

// heapOf is the live heap in bytes.
func heapOf(b *testing.B, pprof string) float64 {
	b.Helper()
	var text []byte
	for range 3 { // the second collection frees what finalizers held
		resp, err := http.Get("http://" + pprof + "/debug/pprof/heap?debug=1&gc=1")
		require.NoError(b, err)
		text, err = io.ReadAll(resp.Body)
		require.NoError(b, err)
		require.NoError(b, resp.Body.Close())
	}
	m := regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`).FindSubmatch(text)
	require.NotNil(b, m)
	n, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(b, err)
	return n
}
