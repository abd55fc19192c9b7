package steadyotlpreceiver

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/xconsumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"
)

// NewFactory makes receivers of the type `otlp`, whose configuration and behaviour are those of the Collector's own. What
// they create has no effect, on sockets or anything else, until it is started.
func NewFactory() receiver.Factory {
	upstream := otlpreceiver.NewFactory().(xreceiver.Factory)
	return xreceiver.NewFactory(
		upstream.Type(),
		upstream.CreateDefaultConfig,
		xreceiver.WithTraces(createTraces, upstream.TracesStability()),
		xreceiver.WithMetrics(createMetrics, upstream.MetricsStability()),
		xreceiver.WithLogs(createLogs, upstream.LogsStability()),
		xreceiver.WithProfiles(createProfiles, upstream.ProfilesStability()),
	)
}

func createTraces(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Traces) (receiver.Traces, error) {
	return steady.create(set, cfg, func(to *consumers) { to.traces = next }), nil
}

func createMetrics(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
	return steady.create(set, cfg, func(to *consumers) { to.metrics = next }), nil
}

func createLogs(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
	return steady.create(set, cfg, func(to *consumers) { to.logs = next }), nil
}

func createProfiles(_ context.Context, set receiver.Settings, cfg component.Config, next xconsumer.Profiles) (xreceiver.Profiles, error) {
	return steady.create(set, cfg, func(to *consumers) { to.profiles = next }), nil
}
