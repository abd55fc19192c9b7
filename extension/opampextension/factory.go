package opampextension

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/extension"
)

// componentType is the type the extension is configured by.
var componentType = component.MustNewType("opamp")

// NewFactory creates the factory of the extension.
func NewFactory() extension.Factory {
	return extension.NewFactory(componentType, createDefaultConfig, create, component.StabilityLevelDevelopment)
}

func createDefaultConfig() component.Config {
	return &Config{Server: Server{
		WS:   configoptional.Default(WebSocket{}),
		HTTP: configoptional.Default(HTTP{PollingInterval: 30 * time.Second}),
	}}
}

func create(_ context.Context, set extension.Settings, cfg component.Config) (extension.Extension, error) {
	return newAgent(set, cfg.(*Config))
}
