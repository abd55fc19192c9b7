package dryrun

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configtelemetry"
	"go.opentelemetry.io/collector/service/telemetry"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	otelconf "go.opentelemetry.io/contrib/otelconf/v0.3.0"
	"go.opentelemetry.io/otel"
	"go.uber.org/zap"
)

// createTelemetry creates the providers of the Collector's own telemetry and ends them at once. Readers that open a port
// are left out: the port is taken, by the service that runs.
func (c Checker) createTelemetry(ctx context.Context, cfg component.Config) error {
	// Metrics would be sent when their provider is ended: it gets a context that has ended. There are no logs and no spans to
	// send, and with such a context the goroutines of their providers would stay.
	ended, cancel := context.WithCancel(ctx)
	cancel()
	base := telemetry.Settings{BuildInfo: c.BuildInfo}
	resource, err := c.Factories.Telemetry.CreateResource(ctx, base, cfg)
	if err != nil {
		return fmt.Errorf("service::telemetry::resource: %w", err)
	}
	base.Resource = &resource
	if own, ok := cfg.(*otelconftelemetry.Config); ok {
		own.Metrics.Readers = pushing(own.Metrics.Readers)
		if len(own.Traces.Processors) > 0 { // creating them sets the propagator of the whole process
			propagator := otel.GetTextMapPropagator()
			defer otel.SetTextMapPropagator(propagator)
		}
	}
	var errs error
	if _, shutdown, err := c.Factories.Telemetry.CreateLogger(ctx, telemetry.LoggerSettings{Settings: base, BuildZapLogger: buildAndClose}, cfg); err != nil {
		errs = errors.Join(errs, fmt.Errorf("service::telemetry::logs: %w", err))
	} else {
		_ = shutdown(ctx)
	}
	views := func(configtelemetry.Level) []otelconf.View { return nil }
	if meters, err := c.Factories.Telemetry.CreateMeterProvider(ctx, telemetry.MeterSettings{Settings: base, Logger: zap.NewNop(), DefaultViews: views}, cfg); err != nil {
		errs = errors.Join(errs, fmt.Errorf("service::telemetry::metrics: %w", err))
	} else {
		_ = meters.Shutdown(ended)
	}
	if tracers, err := c.Factories.Telemetry.CreateTracerProvider(ctx, telemetry.TracerSettings{Settings: base, Logger: zap.NewNop()}, cfg); err != nil {
		errs = errors.Join(errs, fmt.Errorf("service::telemetry::traces: %w", err))
	} else {
		_ = tracers.Shutdown(ctx)
	}
	return errs
}

func pushing(readers []otelconf.MetricReader) []otelconf.MetricReader {
	var kept []otelconf.MetricReader
	for _, r := range readers {
		if r.Pull == nil {
			kept = append(kept, r)
		}
	}
	return kept
}

// buildAndClose opens the log's files as zap would, and closes them, which zap cannot.
func buildAndClose(cfg zap.Config, opts ...zap.Option) (*zap.Logger, error) {
	for _, paths := range [][]string{cfg.OutputPaths, cfg.ErrorOutputPaths} {
		_, closeFiles, err := zap.Open(paths...)
		if err != nil {
			return nil, err
		}
		closeFiles()
	}
	cfg.OutputPaths, cfg.ErrorOutputPaths = nil, nil
	return cfg.Build(opts...)
}
