package opampextension

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/service/hostcapabilities"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"go.uber.org/zap"
)

// wantRestart is called by the session's loop; a restart that waits already is enough.
func (e *opampExtension) wantRestart() {
	select {
	case e.restarts <- struct{}{}:
	default:
	}
}

// partialDelay lets a partial reload finish that has just restarted its first receiver.
const partialDelay = 200 * time.Millisecond

// serve does what must not be done in a callback: restarts, and reading the configuration again after a partial reload.
func (e *opampExtension) serve(ctx context.Context) {
	partial := time.NewTimer(0)
	<-partial.C
	defer partial.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.restarts:
			e.restart(ctx)
		case <-e.receiverStarted:
			partial.Reset(partialDelay)
		case <-partial.C:
			if err := e.reportReread(ctx); err != nil {
				e.set.Logger.Warn("The effective configuration after a partial reload cannot be reported.", zap.Error(err))
			}
		}
	}
}

// restart reloads the Collector in its process, after the configuration has passed the same checks as `validate`: the
// Collector itself would stop first and then find out.
func (e *opampExtension) restart(ctx context.Context) {
	if err := e.dryRun(ctx); err != nil {
		e.set.Logger.Error("The restart that the server asked for is refused: the configuration is not valid.", zap.Error(err))
		e.health.setNote("restart refused: " + err.Error())
		return
	}
	e.health.setNote("")
	if err := hangUp(); err != nil {
		e.set.Logger.Error("The restart that the server asked for failed.", zap.Error(err))
	}
}

// source is the configuration that a reload would read.
func source(uris []string) otelcol.ConfigProviderSettings {
	return otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
		URIs:              uris,
		ProviderFactories: []confmap.ProviderFactory{envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory()},
		DefaultScheme:     "env",
	}}
}

// dryRun checks the configuration that a reload would read, with the factories of this very binary.
func (e *opampExtension) dryRun(ctx context.Context) error {
	factories, err := rebuildFactories(e.host)
	if err != nil {
		return err
	}
	uris := configURIs(os.Args[1:])
	if len(uris) == 0 {
		return errors.New("the command line names no configuration")
	}
	collector, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo:              e.set.BuildInfo,
		Factories:              func() (otelcol.Factories, error) { return factories, nil },
		ConfigProviderSettings: source(uris),
	})
	if err != nil {
		return err
	}
	return collector.DryRun(ctx)
}

// reportReread reads the configuration once more and reports it: the Collector tells nobody of a partial reload.
func (e *opampExtension) reportReread(ctx context.Context) error {
	factories, err := rebuildFactories(e.host)
	if err != nil {
		return err
	}
	uris := configURIs(os.Args[1:])
	provider, err := otelcol.NewConfigProvider(source(uris))
	if err != nil {
		return err
	}
	cfg, err := provider.Get(ctx, factories)
	if err = errors.Join(err, provider.Shutdown(ctx)); err != nil {
		return err
	}
	effective := confmap.New()
	if err := effective.Marshal(cfg); err != nil {
		return err
	}
	unexpanded, err := readUnexpanded(ctx, uris)
	if err != nil {
		return err
	}
	return e.reportConfig(effective, unexpanded)
}

// readUnexpanded merges the named configurations without resolving the references in them.
func readUnexpanded(ctx context.Context, uris []string) (*confmap.Conf, error) {
	providers := map[string]confmap.Provider{}
	for _, f := range source(nil).ResolverSettings.ProviderFactories {
		p := f.Create(confmap.ProviderSettings{Logger: zap.NewNop()})
		providers[p.Scheme()] = p
	}
	merged := confmap.New()
	for _, uri := range uris {
		scheme, _, ok := strings.Cut(uri, ":")
		if p := providers[scheme]; !ok || p == nil {
			scheme, uri = "file", "file:"+uri
		}
		retrieved, err := providers[scheme].Retrieve(ctx, uri, nil)
		if err != nil {
			return nil, err
		}
		conf, err := retrieved.AsConf()
		if err != nil {
			return nil, err
		}
		if err := merged.Merge(conf); err != nil {
			return nil, err
		}
	}
	return merged, nil
}

// configURIs finds the configuration in a command line as the Collector does: --config and --set, each in both forms.
func configURIs(args []string) []string {
	var configs, sets []string
	for i := 0; i < len(args); i++ {
		name, value, ok := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") || name != "config" && name != "set" {
			continue
		}
		if !ok && i+1 < len(args) {
			i++
			value = args[i]
		}
		if name == "config" {
			configs = append(configs, value)
			continue
		}
		if key, v, ok := strings.Cut(value, "="); ok {
			sets = append(sets, "yaml:"+strings.TrimSpace(strings.ReplaceAll(key, ".", "::"))+": "+strings.TrimSpace(v))
		}
	}
	return append(configs, sets...)
}

// rebuildFactories collects the factories that the Collector was started with.
func rebuildFactories(host component.Host) (otelcol.Factories, error) {
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
