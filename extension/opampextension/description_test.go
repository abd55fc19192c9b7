package opampextension

import (
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

func byKey(list []*protobufs.KeyValue) map[string]*protobufs.AnyValue {
	out := map[string]*protobufs.AnyValue{}
	for _, kv := range list {
		out[kv.Key] = kv.Value
	}
	return out
}

// It sets variables, so it does not run in parallel.
func TestDescribe(t *testing.T) {
	t.Setenv("K8S_POD_NAME", "pod-1")
	t.Setenv("OTEL_K8S_NAMESPACE", "prod")
	t.Setenv("CONTAINER_ID", "abc")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "team=sre,region=eu%20west,service.name=not-this-one")
	resource := pcommon.NewMap()
	require.NoError(t, resource.FromRaw(map[string]any{
		"service.name": "otelcol-collie", "service.instance.id": "42", "service.version": "1.0",
		"text": "a", "bool": true, "int": 7, "double": 1.5, "bytes": []byte{1},
		"list": []any{"x", 1}, "map": map[string]any{"k": "v"}, "host.name": "from-resource",
	}))

	d := describe(AgentDescription{
		IdentifyingAttributes:     map[string]string{"service.namespace": "shop"},
		NonIdentifyingAttributes:  map[string]string{"text": "configured", "team": "configured"},
		IncludeResourceAttributes: true,
	}, resource)
	ids, others := byKey(d.IdentifyingAttributes), byKey(d.NonIdentifyingAttributes)
	require.Len(t, ids, 4)
	require.Equal(t, "otelcol-collie", ids["service.name"].GetStringValue())
	require.Equal(t, "42", ids["service.instance.id"].GetStringValue())
	require.Equal(t, "shop", ids["service.namespace"].GetStringValue())

	for key, want := range map[string]string{
		"k8s.pod.name": "pod-1", "k8s.namespace.name": "prod", "container.id": "abc", "region": "eu west",
		"team": "configured", "text": "configured", "host.name": "from-resource",
	} {
		require.Equal(t, want, others[key].GetStringValue(), key)
	}
	require.True(t, others["bool"].GetBoolValue())
	require.EqualValues(t, 7, others["int"].GetIntValue())
	require.InDelta(t, 1.5, others["double"].GetDoubleValue(), 0)
	require.Equal(t, []byte{1}, others["bytes"].GetBytesValue())
	require.Len(t, others["list"].GetArrayValue().GetValues(), 2)
	require.Equal(t, "v", others["map"].GetKvlistValue().GetValues()[0].Value.GetStringValue())

	without := byKey(describe(AgentDescription{}, resource).NonIdentifyingAttributes)
	require.NotContains(t, without, "int", "only on request")
	require.NotEmpty(t, without["os.type"].GetStringValue())
}

func TestConfigURIs(t *testing.T) {
	t.Parallel()
	require.Equal(t,
		[]string{"a.yaml", "file:b.yaml", "c.yaml", "d.yaml", "yaml:processors::batch::timeout: 2s"},
		configURIs([]string{"--config=a.yaml", "--config", "file:b.yaml", "-config=c.yaml", "--feature-gates=x", "--set", "processors.batch.timeout=2s", "--config=d.yaml"}))
	require.Empty(t, configURIs([]string{"--config"}[:0]))
}
