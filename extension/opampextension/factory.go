package opampextension

import (
	"context"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/extension"

	"github.com/collie-otel/collie/internal/agent"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// componentType is the type the extension is configured by.
var componentType = component.MustNewType("opamp")

// defaultInterval is the protocol's, of heartbeats and of polls.
const defaultInterval = 30 * time.Second

// NewFactory creates the factory of the extension.
func NewFactory() extension.Factory {
	return extension.NewFactory(componentType, createDefaultConfig, create, component.StabilityLevelDevelopment)
}

func createDefaultConfig() component.Config {
	return &Config{
		Server: Server{
			WS:             configoptional.Default(WebSocket{}),
			HTTP:           configoptional.Default(HTTP{PollingInterval: defaultInterval}),
			MaxMessageSize: agent.DefaultMaxMessage,
		},
		Capabilities: Capabilities{
			ReportsEffectiveConfig: true, ReportsHealth: true, ReportsHeartbeat: true,
			ReportsAvailableComponents: true, AcceptsRestartCommand: true,
			AcceptsOpAMPConnectionSettings: true, ReportsConnectionSettingsStatus: true,
			AcceptsRemoteConfig: true, ReportsRemoteConfig: true, AcceptsOtherConnectionSettings: true,
			ReportsOwnMetrics: true, ReportsOwnTraces: true, ReportsOwnLogs: true,
		},
		Storage:           Storage{Directory: remoteconfig.DefaultDirectory},
		RemoteConfig:      remoteconfig.DefaultSettings(),
		HealthGracePeriod: time.Minute,
		PPIDPollInterval:  5 * time.Second,
	}
}

func create(_ context.Context, set extension.Settings, cfg component.Config) (extension.Extension, error) {
	return newExtension(set, cfg.(*Config)), nil
}
