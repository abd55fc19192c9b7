package dryrun

import (
	"context"
	"strings"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"
	"go.uber.org/zap"
)

// Scheme is of the one configuration that takes part in a dry run as a map, not as a file.
const Scheme = "opamp"

// Source is where a configuration comes from.
type Source struct {
	// URIs are those of the command line: see URIs.
	URIs []string
	// Candidate is what the URI of the scheme "opamp" stands for; references in it are resolved.
	Candidate map[string]any
}

// Settings are the resolver's. A Collector does not tell its extensions which providers it was built with, so that only
// those of otelcol-collie are known here.
func (s Source) Settings() otelcol.ConfigProviderSettings {
	return otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
		URIs:              s.URIs,
		ProviderFactories: s.providers(),
		DefaultScheme:     "env",
	}}
}

func (s Source) providers() []confmap.ProviderFactory {
	list := []confmap.ProviderFactory{envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory()}
	if s.Candidate != nil {
		list = append(list, confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider { return candidate(s) }))
	}
	return list
}

// candidate is a provider that answers with the candidate, whatever it is asked for.
type candidate Source

func (c candidate) Retrieve(context.Context, string, confmap.WatcherFunc) (*confmap.Retrieved, error) {
	return confmap.NewRetrieved(c.Candidate)
}
func (candidate) Scheme() string                 { return Scheme }
func (candidate) Shutdown(context.Context) error { return nil }

// Unexpanded merges the named configurations without resolving the references in them.
func (s Source) Unexpanded(ctx context.Context) (*confmap.Conf, error) {
	providers := map[string]confmap.Provider{}
	for _, f := range s.providers() {
		p := f.Create(confmap.ProviderSettings{Logger: zap.NewNop()})
		providers[p.Scheme()] = p
	}
	merged := confmap.New()
	for _, uri := range s.URIs {
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

// URIs finds the configuration in a command line as the Collector does: --config and --set, each in both forms.
func URIs(args []string) []string {
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
