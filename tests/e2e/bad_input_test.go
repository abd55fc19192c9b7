package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// maxMessage is the largest request that the shipped configurations accept, in bytes.
const maxMessage = 4 << 20

const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// rawCodec sends bytes as they are, whatever they mean.
type rawCodec struct{}

var _ encoding.Codec = rawCodec{}

func (rawCodec) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (rawCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }
func (rawCodec) Name() string                    { return "proto" }

// rawClient talks to a Collector without the safety of the OTLP client.
type rawClient struct {
	t    *testing.T
	conn *grpc.ClientConn
	url  string
}

func newRawClient(t *testing.T, c *harness.Collector) rawClient {
	t.Helper()
	conn, err := grpc.NewClient(c.GRPC(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return rawClient{t, conn, "http://" + c.HTTP() + "/v1/traces"}
}

func (r rawClient) grpc(body []byte) *status.Status {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	var reply []byte
	return status.Convert(r.conn.Invoke(ctx, exportMethod, body, &reply, grpc.ForceCodec(rawCodec{})))
}

func (r rawClient) http(contentType string, body []byte) (code int, text string) {
	r.t.Helper()
	resp, err := http.Post(r.url, contentType, bytes.NewReader(body))
	require.NoError(r.t, err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return resp.StatusCode, string(b)
}

const protobufType = "application/x-protobuf"

// badBodies are n bodies, half of them random, half of them valid ones cut off; the same at each run.
func badBodies(n int) [][]byte {
	random := rand.New(rand.NewPCG(1, 2))
	valid := validBody(50)
	bodies := make([][]byte, n)
	for i := range bodies {
		if i%2 == 0 {
			bodies[i] = bytes.Clone(valid[:1+random.IntN(len(valid)-1)])
			continue
		}
		bodies[i] = make([]byte, 1+random.IntN(400))
		for j := range bodies[i] {
			bodies[i][j] = byte(random.Uint32())
		}
	}
	return bodies
}

func validBody(spans int) []byte {
	td := ptrace.NewTraces()
	ss := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for i := range spans {
		span := ss.AppendEmpty()
		span.SetName(fmt.Sprintf("span %d", i))
		span.Attributes().PutStr("key", "a value of some length")
	}
	b, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	if err != nil {
		panic(err) // cannot happen: nothing in it is invalid
	}
	return b
}

// decodes says whether a body is a request after all: some random ones are.
func decodes(body []byte) bool { return ptraceotlp.NewExportRequest().UnmarshalProto(body) == nil }

// Hostile and broken requests get a clear error each; the process stays up, and good traffic beside them does not notice.
func TestBadInput(t *testing.T) {
	t.Parallel()
	sink := harness.StartSink(t)
	c := harness.Start(t, harness.Options{Configs: []string{"gateway.yaml"}, Env: map[string]string{"COLLIE_BACKEND_ENDPOINT": sink.GRPCEndpoint()}})
	stop := harness.Background(t, traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Rate: 500})
	raw := newRawClient(t, c)
	pid := c.PID()

	refused := 0
	for i, body := range badBodies(1000) {
		st, good := raw.grpc(body), decodes(body)
		require.Equal(t, good, st.Code() == codes.OK, "body %d over gRPC: %v", i, st)
		code, text := raw.http(protobufType, body)
		require.Equal(t, good, code == http.StatusOK, "body %d over HTTP: %d %q", i, code, text)
		if good {
			continue
		}
		refused++
		require.Equal(t, codes.Internal, st.Code(), "body %d: the code that gRPC itself uses for what it cannot decode", i)
		require.NotEmpty(t, st.Message())
		require.Equal(t, http.StatusBadRequest, code)
		require.NotEmpty(t, text)
	}
	require.Greater(t, refused, 900, "the bodies are bad indeed")

	t.Run("oversize", func(t *testing.T) {
		big := validBody(maxMessage / 30)
		require.Greater(t, len(big), maxMessage)
		st := raw.grpc(big)
		require.Equal(t, codes.ResourceExhausted, st.Code(), st.Message())
		require.Contains(t, st.Message(), "larger than max")
		code, text := raw.http(protobufType, big)
		require.Equal(t, http.StatusBadRequest, code, text)
		require.Contains(t, text, "too large")
	})
	t.Run("wrong content type", func(t *testing.T) {
		code, text := raw.http("text/plain", []byte("hello"))
		require.Equal(t, http.StatusUnsupportedMediaType, code, text)
		require.Contains(t, text, "application/x-protobuf")
	})
	sum := stop()
	require.Equal(t, sum.Sent, sum.Acknowledged, "good traffic was untouched: %v", sum.Errors)
	harness.AwaitAll(t, sink, sum, 30*time.Second)
	require.True(t, c.Running())
	require.Equal(t, pid, c.PID())
}

// The largest request that is accepted, nested as deep as fits into it, does not overflow the decoder's stack.
func TestNestedAttributes(t *testing.T) {
	t.Parallel()
	body := nestedBody(maxMessage - 64)
	for _, name := range []string{"quickstart", "agent", "agent fast", "gateway", "single gateway", "sampler", "balancer"} {
		t.Run(name, func(t *testing.T) { // one after the other: each takes half a gigabyte
			sink, tc := harness.StartSink(t), topologies[name]
			c := harness.Start(t, harness.Options{Configs: tc.configs, Env: tc.environment(sink)})
			raw := newRawClient(t, c)
			require.Equal(t, codes.OK, raw.grpc(body).Code())
			if tc.http {
				code, text := raw.http(protobufType, body)
				require.Equal(t, http.StatusOK, code, text)
			}
			sum := load(t, traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Traces: 10})
			harness.AwaitAll(t, sink, sum, 30*time.Second)
			c.Stop()
		})
	}
}

// nestedBody is one span whose attribute is an array in an array in an array..., size bytes of it.
func nestedBody(size int) []byte {
	// Built from the inside out, backwards in one buffer: AnyValue{array_value: ArrayValue{values: AnyValue{...}}}.
	buf := make([]byte, size+64)
	at := len(buf)
	wrap := func(tag byte) {
		n := len(buf) - at
		var varint []byte
		for v := uint64(n); ; v >>= 7 {
			if v < 0x80 {
				varint = append(varint, byte(v))
				break
			}
			varint = append(varint, byte(v)|0x80)
		}
		at -= len(varint)
		copy(buf[at:], varint)
		at--
		buf[at] = tag
	}
	for at > 128 {
		wrap(0x2a) // AnyValue.array_value
		wrap(0x0a) // ArrayValue.values
	}
	wrap(0x2a)
	wrap(0x12) // KeyValue.value
	wrap(0x4a) // Span.attributes
	wrap(0x12) // ScopeSpans.spans
	wrap(0x12) // ResourceSpans.scope_spans
	wrap(0x0a) // ExportTraceServiceRequest.resource_spans
	return buf[at:]
}

// A configuration with a mistake ends the program at once, with an error that names the place.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	typo := filepath.Join(t.TempDir(), "typo.yaml")
	require.NoError(t, os.WriteFile(typo, []byte("receivers: {otlp: {protocols: {grpc: {endpont: x}}}}\n"), 0o600))
	notYAML := filepath.Join(t.TempDir(), "not.yaml")
	require.NoError(t, os.WriteFile(notYAML, []byte("receivers: [\n"), 0o600))
	for name, tc := range map[string]struct {
		config string
		want   []string
	}{
		"unknown key":  {typo, []string{"endpont", "receivers", "otlp"}},
		"missing file": {"/does/not/exist.yaml", []string{"/does/not/exist.yaml", "no such file"}},
		"not YAML":     {notYAML, []string{"yaml", "line 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			configs := []string{"quickstart.yaml", tc.config}
			out, err := harness.New(t, harness.Options{Configs: configs}).Validate()
			require.Error(t, err)
			for _, want := range tc.want {
				require.Contains(t, out, want)
			}
		})
	}
}
