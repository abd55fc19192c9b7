package steadyotlpreceiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/collie-otel/collie/internal/reload"
)

// The tests are not parallel: parking, and the decision that a shutdown is a reload, belong to the process.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// spec is one receiver of a generation.
type spec struct {
	id, config string
	next       consumers
	telemetry  *component.TelemetrySettings
}

// generations are what a Collector runs, one after the other, in the order of its calls: all are created, then started.
type running struct {
	receivers []component.Component
	host      *testHost
}

type testHost struct {
	extensions map[component.ID]component.Component
	events     chan *componentstatus.Event
}

func (h *testHost) GetExtensions() map[component.ID]component.Component { return h.extensions }
func (h *testHost) Report(e *componentstatus.Event) {
	select {
	case h.events <- e:
	default:
	}
}

func newHost(extensions map[component.ID]component.Component) *testHost {
	return &testHost{extensions: extensions, events: make(chan *componentstatus.Event, 100)}
}

func create(t testing.TB, host *testHost, specs ...spec) *running {
	t.Helper()
	run := &running{host: host}
	factory := NewFactory().(xreceiver.Factory)
	resource := pcommon.NewResource()
	for _, s := range specs {
		set := receiver.Settings{ID: component.MustNewID("otlp"), TelemetrySettings: componenttest.NewNopTelemetrySettings()}
		if s.telemetry != nil {
			set.TelemetrySettings = *s.telemetry
		}
		set.Resource = resource
		if s.id != "" {
			set.ID = component.MustNewIDWithName("otlp", s.id)
		}
		cfg := parse(t, s.config)
		add := func(c component.Component, err error) {
			require.NoError(t, err)
			run.receivers = append(run.receivers, c)
		}
		if s.next.traces != nil {
			add(factory.CreateTraces(t.Context(), set, cfg, s.next.traces))
		}
		if s.next.metrics != nil {
			add(factory.CreateMetrics(t.Context(), set, cfg, s.next.metrics))
		}
		if s.next.logs != nil {
			add(factory.CreateLogs(t.Context(), set, cfg, s.next.logs))
		}
		if s.next.profiles != nil {
			add(factory.CreateProfiles(t.Context(), set, cfg, s.next.profiles))
		}
	}
	return run
}

func (run *running) start(t testing.TB) error {
	t.Helper()
	for _, r := range run.receivers {
		if err := r.Start(context.Background(), run.host); err != nil {
			return err
		}
	}
	return nil
}

func (run *running) stop(t testing.TB, again bool) {
	t.Helper()
	reload.Expect(again)
	defer reload.Expect(false)
	for _, r := range run.receivers {
		require.NoError(t, r.Shutdown(context.Background()))
	}
}

func begin(t testing.TB, specs ...spec) *running {
	t.Helper()
	run := create(t, newHost(nil), specs...)
	require.NoError(t, run.start(t))
	return run
}

func parse(t testing.TB, text string) component.Config {
	t.Helper()
	cfg := NewFactory().CreateDefaultConfig()
	values := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &values))
	require.NoError(t, confmap.NewFromStringMap(values).Unmarshal(cfg))
	return cfg
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

func both(grpcAddress, httpAddress string) string {
	return fmt.Sprintf("protocols: {grpc: {endpoint: %q}, http: {endpoint: %q}}", grpcAddress, httpAddress)
}

// sink counts spans, after a time that a backend takes.
type sink struct {
	spans atomic.Int64
	takes time.Duration
	seen  func(context.Context)
}

func (s *sink) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }
func (s *sink) ConsumeTraces(ctx context.Context, td ptrace.Traces) error {
	if s.seen != nil {
		s.seen(ctx)
	}
	time.Sleep(s.takes) // the backend is slow: this is what is tested, nothing is waited for
	s.spans.Add(int64(td.SpanCount()))
	return nil
}

func traces() ptraceotlp.ExportRequest {
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName("a")
	return ptraceotlp.NewExportRequestFromTraces(td)
}

func dial(t testing.TB, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func export(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := ptraceotlp.NewGRPCClient(conn).Export(ctx, traces())
	return err
}

// client has connections of its own, which it keeps.
func client(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

const (
	waitLimit = 5 * time.Second
	tick      = time.Millisecond
)

var errStatus = errors.New("not 200")

func post(ctx context.Context, c *http.Client, url string, headers ...string) (*http.Response, error) {
	body, err := traces().MarshalProto()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.Do(request)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w: %s", errStatus, response.Status)
	}
	return response, err
}

// parkedNow are the inner receivers that no generation serves.
func parkedNow() []*inner {
	steady.mu.Lock()
	defer steady.mu.Unlock()
	return append([]*inner(nil), steady.parked...)
}

// unpark ends what a test has left parked.
func unpark(t testing.TB) {
	t.Helper()
	for _, in := range parkedNow() {
		require.True(t, steady.remove(in))
		in.linger.Stop()
		in.end()
	}
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

func awaitHeld(t testing.TB, in *inner, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return in.gate.waiting() == n }, 5*time.Second, time.Millisecond, "held: %d, want %d", in.gate.waiting(), n)
}
