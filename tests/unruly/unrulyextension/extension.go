// Package unrulyextension is a test-only extension that does nothing but misbehave as configured.
package unrulyextension

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"

	"github.com/collie-otel/collie/tests/unruly"
)

// NewFactory creates the factory of the extension unruly.
func NewFactory() extension.Factory {
	return extension.NewFactory(component.MustNewType("unruly"), func() component.Config { return &unruly.Config{} }, create, component.StabilityLevelDevelopment)
}

func create(_ context.Context, _ extension.Settings, cfg component.Config) (extension.Extension, error) {
	c, err := unruly.New(cfg.(*unruly.Config))
	return unrulyExtension{c}, err
}

type unrulyExtension struct{ component *unruly.Component }

func (e unrulyExtension) Start(_ context.Context, host component.Host) error {
	return e.component.Start(host)
}
func (e unrulyExtension) Shutdown(context.Context) error { return e.component.Shutdown() }
