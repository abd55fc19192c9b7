package dryrun

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/service/hostcapabilities"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
)

// Factories collects the factories that the Collector was started with, from the host that its extensions get.
func Factories(host component.Host) (otelcol.Factories, error) {
	info, ok := host.(hostcapabilities.ModuleInfo)
	source, ok2 := host.(hostcapabilities.ComponentFactory)
	if !ok || !ok2 {
		return otelcol.Factories{}, errors.New("this host does not tell its components")
	}
	modules := info.GetModuleInfos()
	f := otelcol.Factories{Telemetry: otelconftelemetry.NewFactory()}
	var errs [5]error
	f.Receivers, errs[0] = factoriesOf[receiver.Factory](source, component.KindReceiver, modules.Receiver)
	f.Processors, errs[1] = factoriesOf[processor.Factory](source, component.KindProcessor, modules.Processor)
	f.Exporters, errs[2] = factoriesOf[exporter.Factory](source, component.KindExporter, modules.Exporter)
	f.Connectors, errs[3] = factoriesOf[connector.Factory](source, component.KindConnector, modules.Connector)
	f.Extensions, errs[4] = factoriesOf[extension.Factory](source, component.KindExtension, modules.Extension)
	return f, errors.Join(errs[:]...)
}

// factoriesOf asks the host for each type; deprecated names lead to a factory that is there already.
func factoriesOf[F component.Factory, M any](host hostcapabilities.ComponentFactory, kind component.Kind, modules map[component.Type]M) (map[component.Type]F, error) {
	seen := map[component.Type]bool{}
	var list []F
	for t := range modules {
		factory, ok := host.GetFactory(kind, t).(F)
		if !ok {
			return nil, fmt.Errorf("the host has no factory for %s %s", kind, t)
		}
		if !seen[factory.Type()] {
			seen[factory.Type()] = true
			list = append(list, factory)
		}
	}
	return otelcol.MakeFactoryMap(list...)
}

// Aliases are all names of a component's type, itself included: `otlp` and `otlp_grpc` are one exporter. kind is the name of
// the section, such as "exporters".
func (c Checker) Aliases(kind, name string) []string {
	f := c.Factories
	switch kind {
	case "receivers":
		return aliasesOf(f.Receivers, name)
	case "processors":
		return aliasesOf(f.Processors, name)
	case "exporters":
		return aliasesOf(f.Exporters, name)
	case "connectors":
		return aliasesOf(f.Connectors, name)
	case "extensions":
		return aliasesOf(f.Extensions, name)
	default:
		return []string{name}
	}
}

func aliasesOf[F component.Factory](factories map[component.Type]F, name string) []string {
	names := []string{name}
	t, err := component.NewType(name)
	if err != nil {
		return names
	}
	factory, ok := factories[t]
	if !ok {
		return names
	}
	for other, f := range factories {
		if f.Type() == factory.Type() && other != t {
			names = append(names, other.String())
		}
	}
	return names
}
