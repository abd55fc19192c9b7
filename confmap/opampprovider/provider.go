// Package opampprovider is the configuration provider of the scheme "opamp": `--config=opamp:FILE` runs the configuration of
// a file together with what an OpAMP server has sent, and lets the server change it while the Collector runs.
//
// The file needs the extension opamp. What is decided here, and how a bad configuration is left again, is the business of
// internal/remoteconfig; retrieving has no side effects.
package opampprovider

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"go.opentelemetry.io/collector/confmap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// NewFactory returns the factory of the provider.
func NewFactory() confmap.ProviderFactory {
	return confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider { return provider{} })
}

type provider struct{}

// Retrieve takes a URI of the form opamp:FILE.
func (provider) Retrieve(ctx context.Context, uri string, watcher confmap.WatcherFunc) (*confmap.Retrieved, error) {
	file, ok := strings.CutPrefix(uri, dryrun.Scheme+":")
	if !ok || file == "" {
		return nil, fmt.Errorf("%q: want opamp:FILE, FILE being the configuration that the server's is merged with", uri)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	manager, err := remoteconfig.Open(path)
	if err != nil {
		return nil, err
	}
	return manager.Retrieve(ctx, watcher)
}

// Scheme is "opamp".
func (provider) Scheme() string { return dryrun.Scheme }

// Shutdown is called when a run of the Collector ends in order, before its components are shut down.
func (provider) Shutdown(context.Context) error {
	if manager := remoteconfig.Current(); manager != nil {
		manager.Closing()
	}
	return nil
}
