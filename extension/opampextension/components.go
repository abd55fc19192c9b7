package opampextension

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/service/hostcapabilities"
)

// availableComponents lists what the binary contains, in the form of the specification's example for Collectors:
// kind, type, and the Go module as code.namespace. The same components have the same hash in every process.
// It returns nil when the host does not tell.
func availableComponents(host component.Host) *protobufs.AvailableComponents {
	info, ok := host.(hostcapabilities.ModuleInfo)
	if !ok {
		return nil
	}
	modules := info.GetModuleInfos()
	kinds := map[string]map[string]string{"receivers": {}, "processors": {}, "exporters": {}, "connectors": {}, "extensions": {}}
	for t, m := range modules.Receiver {
		kinds["receivers"][t.String()] = m.BuilderRef
	}
	for t, m := range modules.Processor {
		kinds["processors"][t.String()] = m.BuilderRef
	}
	for t, m := range modules.Exporter {
		kinds["exporters"][t.String()] = m.BuilderRef
	}
	for t, m := range modules.Connector {
		kinds["connectors"][t.String()] = m.BuilderRef
	}
	for t, m := range modules.Extension {
		kinds["extensions"][t.String()] = m.BuilderRef
	}
	hash := sha256.New()
	all := map[string]*protobufs.ComponentDetails{}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		types := map[string]*protobufs.ComponentDetails{}
		for _, name := range slices.Sorted(maps.Keys(kinds[kind])) {
			module := kinds[kind][name]
			_, _ = fmt.Fprintf(hash, "%s/%s=%s\n", kind, name, module)
			types[name] = &protobufs.ComponentDetails{Metadata: []*protobufs.KeyValue{{Key: "code.namespace", Value: text(module)}}}
		}
		all[kind] = &protobufs.ComponentDetails{SubComponentMap: types}
	}
	return &protobufs.AvailableComponents{Components: all, Hash: hash.Sum(nil)}
}
