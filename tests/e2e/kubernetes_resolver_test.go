package e2e

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// kubernetesAPI answers list and watch of one EndpointSlice, as far as a resolver asks.
type kubernetesAPI struct {
	*httptest.Server
	changes chan *discovery.EndpointSlice // what the watch sends next
}

func newKubernetesAPI(t *testing.T, first *discovery.EndpointSlice) *kubernetesAPI {
	t.Helper()
	api := &kubernetesAPI{changes: make(chan *discovery.EndpointSlice, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/observability/endpointslices", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != "Bearer service-account":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Query().Get("sendInitialEvents") == "true": // an older server: the client lists instead
			w.WriteHeader(http.StatusUnprocessableEntity)
		case r.URL.Query().Get("watch") != "true":
			_ = json.NewEncoder(w).Encode(discovery.EndpointSliceList{
				TypeMeta: meta.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"},
				ListMeta: meta.ListMeta{ResourceVersion: "1"}, Items: []discovery.EndpointSlice{*first},
			})
		default:
			api.watch(w, r)
		}
	})
	api.Server = httptest.NewTLSServer(mux)
	t.Cleanup(func() {
		api.CloseClientConnections()
		api.Close()
	})
	return api
}

func (api *kubernetesAPI) watch(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case slice := <-api.changes:
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": slice})
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// prefix enters a mount namespace with the service account that a pod would find.
func (api *kubernetesAPI) prefix(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "token"), []byte("service-account"), 0o600))
	return []string{"unshare", "--mount", "sh", "-c", `
		mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io &&
		cp -r "$0" /run/secrets/kubernetes.io/serviceaccount && exec "$@"`, dir}
}

func endpointSlice(version string, port int, addresses ...string) *discovery.EndpointSlice {
	ready, name, p := true, "otlp", int32(port)
	slice := &discovery.EndpointSlice{
		TypeMeta:    meta.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
		ObjectMeta:  meta.ObjectMeta{Name: "sampler-1", Namespace: "observability", UID: "1", ResourceVersion: version, Labels: map[string]string{discovery.LabelServiceName: "sampler"}},
		AddressType: discovery.AddressTypeIPv4,
		Ports:       []discovery.EndpointPort{{Name: &name, Port: &p}},
	}
	for _, a := range addresses {
		slice.Endpoints = append(slice.Endpoints, discovery.Endpoint{Addresses: []string{a}, Conditions: discovery.EndpointConditions{Ready: &ready}})
	}
	return slice
}

// The balancer follows the endpoints of a Kubernetes Service: every trace goes to one sampler, and a sampler that
// leaves the Service gets nothing more.
func TestKubernetesResolver(t *testing.T) {
	t.Parallel()
	port := harness.FreePort(t, "127.0.0.21")
	var samplers []*traffic.Sink
	for _, address := range []string{"127.0.0.21", "127.0.0.22"} {
		s, err := traffic.NewSink(traffic.SinkConfig{Listen: fmt.Sprintf("%s:%d", address, port)})
		require.NoError(t, err)
		require.NoError(t, s.Start(t.Context()))
		t.Cleanup(func() { _ = s.Shutdown(t.Context()) })
		samplers = append(samplers, s)
	}
	api := newKubernetesAPI(t, endpointSlice("1", port, "127.0.0.21", "127.0.0.22"))
	host, apiPort, err := net.SplitHostPort(api.Listener.Addr().String())
	require.NoError(t, err)
	balancer := harness.Start(t, harness.Options{
		Configs: []string{"tiered/balancer.yaml", "tiered/balancer-k8s.yaml"}, Prefix: api.prefix(t),
		Env: map[string]string{
			"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": apiPort, "COLLIE_SAMPLER_PORT": fmt.Sprint(port),
		},
	})

	const traces, spansPerTrace = 300, 10
	cfg := traffic.LoadConfig{Endpoints: []string{balancer.GRPC()}, Traces: traces, SpansPerTrace: spansPerTrace, Run: "0a0a0a0a"}
	load(t, cfg)
	harness.Await(t, 30*time.Second, "all spans at the two samplers", func() (bool, any) {
		a, b := samplers[0].Summary().Spans, samplers[1].Summary().Spans
		return a+b == traces*spansPerTrace && a > 0 && b > 0, []int64{a, b}
	})
	for i, s := range samplers {
		for trace, spans := range s.TraceSpans(cfg.Run) {
			require.Equal(t, spansPerTrace, spans, "sampler %d, trace %d", i, trace)
		}
	}

	api.changes <- endpointSlice("2", port, "127.0.0.21")
	next := cfg
	next.Traces = 1
	harness.Await(t, 30*time.Second, "the second sampler out of the ring", func() (bool, any) {
		before := samplers[1].Summary().Spans
		for range 10 { // one of ten traces would find it, were it there
			next.FirstTrace += 1000
			load(t, next)
		}
		want := next.FirstTrace / 1000 * spansPerTrace
		harness.Await(t, 10*time.Second, "the probes at the samplers", func() (bool, any) {
			n := samplers[0].Summary().Spans + samplers[1].Summary().Spans
			return n == int64(traces*spansPerTrace+want), n
		})
		return samplers[1].Summary().Spans == before, before
	})
}
