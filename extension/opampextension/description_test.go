package opampextension

import (
	"runtime"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"google.golang.org/protobuf/proto"
)

// asMap gives the values of strings by key, and fails on a key that is there twice or out of order.
func asMap(t *testing.T, list []*protobufs.KeyValue) map[string]string {
	t.Helper()
	values, last := map[string]string{}, ""
	for _, kv := range list {
		require.Greater(t, kv.Key, last, "sorted, each once")
		last = kv.Key
		values[kv.Key] = kv.Value.GetStringValue()
	}
	return values
}

func resourceOf(t *testing.T, values map[string]any) pcommon.Map {
	t.Helper()
	m := pcommon.NewMap()
	require.NoError(t, m.FromRaw(values))
	return m
}

// clearEnvironment takes away what the machine of the test may set.
func clearEnvironment(t *testing.T) {
	t.Helper()
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "")
	for _, variables := range fromEnvironment {
		for _, variable := range variables {
			t.Setenv(variable, "")
		}
	}
}

// Not parallel, as all that set environment variables.
func TestDescribe(t *testing.T) {
	resource := map[string]any{
		"service.name": "otelcol", "service.version": "1.0", "service.instance.id": "id", "service.namespace": "ns",
		"os.type": "resource-os", "team": "resource",
	}
	tests := []struct {
		name     string
		cfg      AgentDescription
		resource map[string]any
		ids      map[string]string // exactly
		others   map[string]string // at least
		absent   []string          // from the others
	}{
		{
			name: "identifying attributes of the resource", resource: resource,
			ids:    map[string]string{"service.name": "otelcol", "service.version": "1.0", "service.instance.id": "id", "service.namespace": "ns"},
			others: map[string]string{"os.type": runtime.GOOS, "host.arch": runtime.GOARCH},
			absent: []string{"team", "service.name", "k8s.pod.name", "container.id"},
		},
		{
			name: "resource over found", resource: resource, cfg: AgentDescription{IncludeResourceAttributes: true},
			ids:    map[string]string{"service.name": "otelcol", "service.version": "1.0", "service.instance.id": "id", "service.namespace": "ns"},
			others: map[string]string{"os.type": "resource-os", "team": "resource"},
			absent: []string{"service.name"},
		},
		{
			name: "configured over resource and found", resource: resource,
			cfg: AgentDescription{
				IncludeResourceAttributes: true,
				IdentifyingAttributes:     map[string]string{"service.name": "edge", "site": "one"},
				NonIdentifyingAttributes:  map[string]string{"os.type": "configured", "team": "configured", "host.arch": "configured"},
			},
			ids: map[string]string{
				"service.name": "edge", "service.version": "1.0", "service.instance.id": "id", "service.namespace": "ns", "site": "one",
			},
			others: map[string]string{"os.type": "configured", "team": "configured", "host.arch": "configured"},
		},
		{name: "empty resource", ids: map[string]string{}, others: map[string]string{"os.type": runtime.GOOS}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clearEnvironment(t)
			d := describe(tt.cfg, resourceOf(t, tt.resource))
			require.Equal(t, tt.ids, asMap(t, d.IdentifyingAttributes))
			others := asMap(t, d.NonIdentifyingAttributes)
			require.Subset(t, others, tt.others)
			for _, key := range tt.absent {
				require.NotContains(t, others, key)
			}
			for key, value := range others {
				require.NotEmpty(t, value, key)
			}
		})
	}
}

func TestDescribeEnvironment(t *testing.T) {
	tests := []struct {
		name      string
		variables map[string]string
		want      map[string]string
		absent    []string
	}{
		{
			name: "Kubernetes",
			variables: map[string]string{
				"K8S_NODE_NAME": "node", "K8S_POD_NAME": "pod", "K8S_POD_UID": "uid", "K8S_NAMESPACE": "space", "K8S_CLUSTER_NAME": "cluster",
				"CONTAINER_ID": "cid", "K8S_CONTAINER_NAME": "box",
			},
			want: map[string]string{
				"k8s.node.name": "node", "k8s.pod.name": "pod", "k8s.pod.uid": "uid", "k8s.namespace.name": "space", "k8s.cluster.name": "cluster",
				"container.id": "cid", "container.name": "box",
			},
		},
		{
			name:      "second name",
			variables: map[string]string{"OTEL_K8S_NODE_NAME": "node", "OTEL_K8S_POD_NAME": "pod", "OTEL_K8S_POD_UID": "uid", "OTEL_K8S_NAMESPACE": "space"},
			want:      map[string]string{"k8s.node.name": "node", "k8s.pod.name": "pod", "k8s.pod.uid": "uid", "k8s.namespace.name": "space"},
		},
		{
			name:      "the first name counts",
			variables: map[string]string{"K8S_NODE_NAME": "first", "OTEL_K8S_NODE_NAME": "second"},
			want:      map[string]string{"k8s.node.name": "first"},
		},
		{
			name:      "resource attributes",
			variables: map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "team = a ,site=b=c,encoded=x%2Cy%20z,percent=100%,k8s.pod.name=pod,broken,empty="},
			want:      map[string]string{"team": "a", "site": "b=c", "encoded": "x,y z", "percent": "100%", "k8s.pod.name": "pod"},
			absent:    []string{"broken", "empty", ""},
		},
		{
			name:      "resource attributes that identify are the Collector's to say",
			variables: map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "service.name=x, service.instance.id=y"},
			absent:    []string{"service.name", "service.instance.id"},
		},
		{
			name:      "resource attributes over the rest that is found",
			variables: map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "os.type=plan9,k8s.pod.name=b", "K8S_POD_NAME": "a"},
			want:      map[string]string{"os.type": "plan9", "k8s.pod.name": "b"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clearEnvironment(t)
			for k, v := range tt.variables {
				t.Setenv(k, v)
			}
			others := asMap(t, describe(AgentDescription{}, pcommon.NewMap()).NonIdentifyingAttributes)
			require.Subset(t, others, tt.want)
			for _, key := range tt.absent {
				require.NotContains(t, others, key)
			}
		})
	}
}

// Bytes that are not UTF-8 would keep the message from being sent.
func TestDescribeUTF8(t *testing.T) {
	clearEnvironment(t)
	t.Setenv("K8S_POD_NAME", "pod\xff")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k\xff=a%ff")
	d := describe(AgentDescription{}, pcommon.NewMap())
	_, err := proto.Marshal(d)
	require.NoError(t, err)
	require.Subset(t, asMap(t, d.NonIdentifyingAttributes), map[string]string{"k8s.pod.name": "pod\uFFFD", "k\uFFFD": "a\uFFFD"})
}

func TestAnyValue(t *testing.T) {
	t.Parallel()
	boolean := &protobufs.AnyValue{Value: &protobufs.AnyValue_BoolValue{BoolValue: true}}
	integer := &protobufs.AnyValue{Value: &protobufs.AnyValue_IntValue{IntValue: -7}}
	tests := []struct {
		name string
		in   any
		want *protobufs.AnyValue
	}{
		{"string", "a", text("a")},
		{"empty", nil, text("")},
		{"bool", true, boolean},
		{"int", int64(-7), integer},
		{"double", 1.5, &protobufs.AnyValue{Value: &protobufs.AnyValue_DoubleValue{DoubleValue: 1.5}}},
		{"bytes", []byte{0, 255}, &protobufs.AnyValue{Value: &protobufs.AnyValue_BytesValue{BytesValue: []byte{0, 255}}}},
		{
			"slice",
			[]any{true, int64(-7), []any{"a"}},
			&protobufs.AnyValue{Value: &protobufs.AnyValue_ArrayValue{ArrayValue: &protobufs.ArrayValue{Values: []*protobufs.AnyValue{
				boolean, integer,
				{Value: &protobufs.AnyValue_ArrayValue{ArrayValue: &protobufs.ArrayValue{Values: []*protobufs.AnyValue{text("a")}}}},
			}}}},
		},
		{
			"map, sorted",
			map[string]any{"c": "x", "a": true, "b": int64(-7)},
			&protobufs.AnyValue{Value: &protobufs.AnyValue_KvlistValue{KvlistValue: &protobufs.KeyValueList{Values: []*protobufs.KeyValue{
				{Key: "a", Value: boolean}, {Key: "b", Value: integer}, {Key: "c", Value: text("x")},
			}}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := pcommon.NewValueEmpty()
			require.NoError(t, v.FromRaw(tt.in))
			got := anyValue(v)
			require.True(t, proto.Equal(tt.want, got), "want %v, got %v", tt.want, got)
		})
	}
}
