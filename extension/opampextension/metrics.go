package opampextension

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// observe offers the extension's own metrics. The numbers are the process's and so survive reloads.
func (e *opampExtension) observe() error {
	meter := e.set.MeterProvider.Meter("github.com/collie-otel/collie/extension/opampextension")
	connected, err1 := meter.Int64ObservableGauge("otelcol_opamp_connected", metric.WithDescription("1 while the OpAMP server is connected."))
	messages, err2 := meter.Int64ObservableCounter("otelcol_opamp_messages_total", metric.WithDescription("OpAMP messages sent and received."))
	dropped, err3 := meter.Int64ObservableCounter("otelcol_opamp_custom_messages_dropped_total", metric.WithDescription("Custom messages that nobody took in time."))
	results, err4 := meter.Int64ObservableCounter("otelcol_opamp_remote_config_applied_total", metric.WithDescription("Remote configurations that were applied, or failed."))
	took, err5 := meter.Float64ObservableGauge("otelcol_opamp_remote_config_apply_duration_seconds", metric.WithUnit("s"),
		metric.WithDescription("From the offer of the last good remote configuration to the moment when it ran."))
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return fmt.Errorf("make the metrics of the opamp extension: %w", err)
	}
	session, manager := e.session, e.manager
	registration, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		up := int64(0)
		if session.Connected() {
			up = 1
		}
		sent, received := session.Messages()
		o.ObserveInt64(connected, up)
		o.ObserveInt64(messages, sent, label("direction", "sent"))
		o.ObserveInt64(messages, received, label("direction", "received"))
		o.ObserveInt64(dropped, session.Custom.Dropped())
		if manager != nil {
			applied, failed, last := manager.Results()
			o.ObserveInt64(results, applied, label("result", "applied"))
			o.ObserveInt64(results, failed, label("result", "failed"))
			o.ObserveFloat64(took, last.Seconds())
		}
		return nil
	}, connected, messages, dropped, results, took)
	e.metrics = registration
	return err
}

func label(key, value string) metric.ObserveOption {
	return metric.WithAttributes(attribute.String(key, value))
}
