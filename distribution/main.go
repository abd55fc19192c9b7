//go:build otelcol_collie

// Program otelcol-collie is an OpenTelemetry Collector with an OpAMP agent inside.
//
// This file takes the place of the main.go that ocb generates: `make build` copies it beside the generated
// components.go and compiles both with the tag otelcol_collie. tests/policy holds it to the generated one.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	envprovider "go.opentelemetry.io/collector/confmap/provider/envprovider"
	fileprovider "go.opentelemetry.io/collector/confmap/provider/fileprovider"
	yamlprovider "go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"

	opampprovider "github.com/collie-otel/collie/confmap/opampprovider"
	"github.com/collie-otel/collie/internal/gomem"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// version is stamped by the build.
var version = "dev"

func main() {
	if err := gomem.Apply(os.LookupEnv, gomem.Throughput); err != nil {
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
					opampprovider.NewFactory(),
				},
			},
		},
		ProviderModules: map[string]string{
			envprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme():   "go.opentelemetry.io/collector/confmap/provider/envprovider v1.65.0",
			fileprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme():  "go.opentelemetry.io/collector/confmap/provider/fileprovider v1.65.0",
			yamlprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme():  "go.opentelemetry.io/collector/confmap/provider/yamlprovider v1.65.0",
			opampprovider.NewFactory().Create(confmap.ProviderSettings{}).Scheme(): "github.com/collie-otel/collie v0.0.0",
		},
		ConverterModules: []string{},
	}

	// run is generated, one per operating system.
	if err := run(set); err != nil {
		os.Exit(1) // the command has printed the error
	}
}

// runInteractive is called by the generated run, on Windows only outside a service. A configuration that does not start
// leads to another run, in this process.
func runInteractive(params otelcol.CollectorSettings) error {
	holdSignals()
	command := otelcol.NewCommand(params)
	once := command.RunE
	command.RunE = func(cmd *cobra.Command, args []string) error {
		return remoteconfig.Run(params.Factories, func() error { return once(cmd, args) })
	}
	return command.Execute()
}

// holdSignals keeps signals from killing the process before the Collector listens for them, which it does only after it
// has said that it is ready: a SIGTERM in that moment would be a kill -9. An early SIGHUP has nothing to reload yet.
// A SIGTERM is repeated until the Collector has heard it. (Canceling a context would be simpler, and lose data: tail
// sampling, for one, sends what it has decided with the context that it was created with.)
func holdSignals() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // nobody reads it: between two runs it means nothing either
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		sig := <-end
		self, err := os.FindProcess(os.Getpid())
		for err == nil {
			time.Sleep(100 * time.Millisecond)
			err = self.Signal(sig)
		}
	}()
}
