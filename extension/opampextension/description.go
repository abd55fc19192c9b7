package opampextension

import (
	"cmp"
	"maps"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/shirou/gopsutil/v4/host"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// identifying are the attributes that name an agent (spec "AgentDescription.identifying_attributes").
var identifying = []string{"service.name", "service.version", "service.instance.id", "service.namespace"}

// fromEnvironment maps the attributes of a container to the variables that its manifest may set, the first one that is set counts.
var fromEnvironment = map[string][]string{
	"k8s.node.name":      {"K8S_NODE_NAME", "OTEL_K8S_NODE_NAME"},
	"k8s.pod.name":       {"K8S_POD_NAME", "OTEL_K8S_POD_NAME"},
	"k8s.pod.uid":        {"K8S_POD_UID", "OTEL_K8S_POD_UID"},
	"k8s.namespace.name": {"K8S_NAMESPACE", "OTEL_K8S_NAMESPACE"},
	"k8s.cluster.name":   {"K8S_CLUSTER_NAME"},
	"container.id":       {"CONTAINER_ID"},
	"container.name":     {"CONTAINER_NAME", "K8S_CONTAINER_NAME"},
}

// describe says who the agent is: configured attributes win over the Collector's resource, and that over what is found out.
func describe(cfg AgentDescription, resource pcommon.Map) *protobufs.AgentDescription {
	ids, others := map[string]*protobufs.AnyValue{}, map[string]*protobufs.AnyValue{}
	for k, v := range found() {
		others[k] = text(v)
	}
	for k, v := range resource.All() {
		switch {
		case slices.Contains(identifying, k):
			ids[k] = anyValue(v)
		case cfg.IncludeResourceAttributes:
			others[k] = anyValue(v)
		}
	}
	for k, v := range cfg.NonIdentifyingAttributes {
		others[k] = text(v)
	}
	for k, v := range cfg.IdentifyingAttributes {
		ids[k] = text(v)
	}
	return &protobufs.AgentDescription{IdentifyingAttributes: keyValues(ids), NonIdentifyingAttributes: keyValues(others)}
}

// found is what the operating system and the environment tell; what cannot be read is left out.
func found() map[string]string {
	attributes := map[string]string{"os.type": runtime.GOOS, "host.arch": runtime.GOARCH}
	add := func(key, value string, err error) {
		if err == nil && value != "" {
			attributes[key] = value
		}
	}
	name, err := os.Hostname()
	add("host.name", name, err)
	id, system := machine()
	add("host.id", id, nil)
	add("os.description", system, nil)
	for key, variables := range fromEnvironment {
		for _, variable := range slices.Backward(variables) {
			add(key, os.Getenv(variable), nil)
		}
	}
	for pair := range strings.SplitSeq(os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if key, value, ok := strings.Cut(pair, "="); ok && !slices.Contains(identifying, strings.TrimSpace(key)) {
			value = strings.TrimSpace(value)
			if decoded, err := url.PathUnescape(value); err == nil { // the variable's values are percent-encoded
				value = decoded
			}
			add(strings.TrimSpace(key), value, nil)
		}
	}
	return attributes
}

// machine finds out what takes milliseconds and does not change while the process lives; a reload must not wait for it.
var machine = sync.OnceValues(func() (id, system string) {
	id, _ = host.HostID()
	platform, _, version, _ := host.PlatformInformation()
	return id, strings.TrimSpace(platform + " " + version)
})

func keyValues(values map[string]*protobufs.AnyValue) []*protobufs.KeyValue {
	var list []*protobufs.KeyValue
	for _, key := range slices.Sorted(maps.Keys(values)) {
		list = append(list, &protobufs.KeyValue{Key: validUTF8(key), Value: values[key]})
	}
	return list
}

func text(s string) *protobufs.AnyValue {
	return &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: validUTF8(s)}}
}

// anyValue converts an attribute of any type.
func anyValue(v pcommon.Value) *protobufs.AnyValue {
	switch v.Type() {
	case pcommon.ValueTypeBool:
		return &protobufs.AnyValue{Value: &protobufs.AnyValue_BoolValue{BoolValue: v.Bool()}}
	case pcommon.ValueTypeInt:
		return &protobufs.AnyValue{Value: &protobufs.AnyValue_IntValue{IntValue: v.Int()}}
	case pcommon.ValueTypeDouble:
		return &protobufs.AnyValue{Value: &protobufs.AnyValue_DoubleValue{DoubleValue: v.Double()}}
	case pcommon.ValueTypeBytes:
		return &protobufs.AnyValue{Value: &protobufs.AnyValue_BytesValue{BytesValue: v.Bytes().AsRaw()}}
	case pcommon.ValueTypeSlice:
		list := &protobufs.ArrayValue{}
		for _, element := range v.Slice().All() {
			list.Values = append(list.Values, anyValue(element))
		}
		return &protobufs.AnyValue{Value: &protobufs.AnyValue_ArrayValue{ArrayValue: list}}
	case pcommon.ValueTypeMap:
		list := &protobufs.KeyValueList{}
		for key, element := range v.Map().All() {
			list.Values = append(list.Values, &protobufs.KeyValue{Key: key, Value: anyValue(element)})
		}
		slices.SortFunc(list.Values, func(a, b *protobufs.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
		return &protobufs.AnyValue{Value: &protobufs.AnyValue_KvlistValue{KvlistValue: list}}
	default:
		return text(v.AsString())
	}
}
