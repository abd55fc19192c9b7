//go:build otelcol_collie

// Program otelcol-collie is an OpenTelemetry Collector with an OpAMP agent inside.
//
// This file takes the place of the main.go that ocb generates: `make build` copies it beside the generated
// components.go and compiles both with the tag otelcol_collie. tests/policy holds it to the generated one.
package main

import (
	"fmt"
	"os"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	envprovider "go.opentelemetry.io/collector/confmap/provider/envprovider"
	fileprovider "go.opentelemetry.io/collector/confmap/provider/fileprovider"
	yamlprovider "go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"

	"github.com/collie-otel/collie/internal/gomem"
)

// version is stamped by the build.
var version = "dev"

func main() {
	if err := gomem.Apply(os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, "otelcol-collie:", err)
	}

	info := component.BuildInfo{
		Command:     "otelcol-collie",
		Description: "Slim OpenTelemetry Collector with an OpAMP agent inside",
		Version:     version,
	}

	set := otelcol.CollectorSettings{
		BuildInfo: info,
		Factories: components,
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				ProviderFactories: []confmap.ProviderFactory{
					envprovider.NewFactory(),
					fileprovider.NewFactory(),
					yamlprovider.NewFactory(),
				},
			},
		},
		ProviderModules: map[string]string{
			envprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme():  "go.opentelemetry.io/collector/confmap/provider/envprovider v1.65.0",
			fileprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme(): "go.opentelemetry.io/collector/confmap/provider/fileprovider v1.65.0",
			yamlprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme(): "go.opentelemetry.io/collector/confmap/provider/yamlprovider v1.65.0",
		},
		ConverterModules: []string{},
	}

	// run is generated, one per operating system.
	if err := run(set); err != nil {
		os.Exit(1) // the command has printed the error
	}
}

// runInteractive is called by the generated run, on Windows only outside a service.
func runInteractive(params otelcol.CollectorSettings) error {
	return otelcol.NewCommand(params).Execute()
}
