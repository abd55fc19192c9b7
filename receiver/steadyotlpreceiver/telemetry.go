package steadyotlpreceiver

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// telemetry is that of the current generation. The inner receiver holds on to what it was made with, so that hands on.
type telemetry struct {
	now atomic.Pointer[component.TelemetrySettings]
}

// use makes set the current one, less the name of the signal: a receiver of several was made with the settings of one.
func (t *telemetry) use(set component.TelemetrySettings) {
	const signal = "otelcol.signal"
	set.Logger = set.Logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		if c, ok := core.(interface {
			DropInjectedAttributes(...string) zapcore.Core
		}); ok {
			return c.DropInjectedAttributes(signal)
		}
		return core
	}))
	if p, ok := set.TracerProvider.(interface {
		DropInjectedAttributes(...string) trace.TracerProvider
	}); ok {
		set.TracerProvider = p.DropInjectedAttributes(signal)
	}
	if p, ok := set.MeterProvider.(interface {
		DropInjectedAttributes(...string) metric.MeterProvider
	}); ok {
		set.MeterProvider = p.DropInjectedAttributes(signal)
	}
	t.now.Store(&set)
}

// settings are those for the inner receiver.
func (t *telemetry) settings(of component.TelemetrySettings) component.TelemetrySettings {
	of.Logger = of.Logger.WithOptions(zap.WrapCore(func(zapcore.Core) zapcore.Core { return newLateCore(t) }))
	of.TracerProvider = lateTracerProvider{telemetry: t}
	of.MeterProvider = lateMeterProvider{telemetry: t}
	return of
}

// late is something that is made of the current telemetry, once per generation, when it is used.
type late[T any] struct {
	telemetry *telemetry
	make      func(*component.TelemetrySettings) T
	made      atomic.Pointer[made[T]]
}

type made[T any] struct {
	of *component.TelemetrySettings
	is T
}

func (l *late[T]) get() T {
	now := l.telemetry.now.Load()
	if m := l.made.Load(); m != nil && m.of == now {
		return m.is
	}
	m := &made[T]{now, l.make(now)}
	l.made.Store(m)
	return m.is
}

// lateCore hands log entries on.
type lateCore struct{ late[zapcore.Core] }

func newLateCore(t *telemetry) *lateCore {
	return &lateCore{late[zapcore.Core]{telemetry: t, make: func(set *component.TelemetrySettings) zapcore.Core {
		return set.Logger.Core()
	}}}
}

func (c *lateCore) Enabled(level zapcore.Level) bool { return c.get().Enabled(level) }

func (c *lateCore) With(fields []zapcore.Field) zapcore.Core {
	with := c.make
	return &lateCore{late[zapcore.Core]{telemetry: c.telemetry, make: func(set *component.TelemetrySettings) zapcore.Core {
		return with(set).With(fields)
	}}}
}

func (c *lateCore) Check(entry zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.get().Check(entry, to)
}

func (c *lateCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	return c.get().Write(entry, fields)
}

func (c *lateCore) Sync() error { return c.get().Sync() }

type lateTracerProvider struct {
	embedded.TracerProvider
	telemetry *telemetry
}

func (p lateTracerProvider) Tracer(name string, options ...trace.TracerOption) trace.Tracer {
	return &lateTracer{late: late[trace.Tracer]{telemetry: p.telemetry, make: func(set *component.TelemetrySettings) trace.Tracer {
		return set.TracerProvider.Tracer(name, options...)
	}}}
}

type lateTracer struct {
	embedded.Tracer
	late[trace.Tracer]
}

func (t *lateTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return t.get().Start(ctx, name, options...)
}

// lateMeterProvider and lateMeter offer the instruments that the inner receiver and its servers use, which a test checks:
// counters and histograms. All other kinds are silent.
type lateMeterProvider struct {
	noop.MeterProvider
	telemetry *telemetry
}

func (p lateMeterProvider) Meter(name string, options ...metric.MeterOption) metric.Meter {
	return &lateMeter{late: late[metric.Meter]{telemetry: p.telemetry, make: func(set *component.TelemetrySettings) metric.Meter {
		return set.MeterProvider.Meter(name, options...)
	}}}
}

type lateMeter struct {
	noop.Meter
	late[metric.Meter]
}

// instrument makes an instrument of each generation's meter. An error leaves it usable, as the API promises.
func instrument[T any, O any](m *lateMeter, create func(metric.Meter, string, ...O) (T, error), name string, options []O) late[T] {
	return late[T]{telemetry: m.telemetry, make: func(*component.TelemetrySettings) T {
		i, err := create(m.get(), name, options...)
		if err != nil {
			otel.Handle(err)
		}
		return i
	}}
}

func (m *lateMeter) Int64Counter(name string, options ...metric.Int64CounterOption) (metric.Int64Counter, error) {
	return &lateCounter{late: instrument(m, metric.Meter.Int64Counter, name, options)}, nil
}

func (m *lateMeter) Int64Histogram(name string, options ...metric.Int64HistogramOption) (metric.Int64Histogram, error) {
	return &lateInt64Histogram{late: instrument(m, metric.Meter.Int64Histogram, name, options)}, nil
}

func (m *lateMeter) Float64Histogram(name string, options ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return &lateFloat64Histogram{late: instrument(m, metric.Meter.Float64Histogram, name, options)}, nil
}

type lateCounter struct {
	noop.Int64Counter
	late[metric.Int64Counter]
}

func (c *lateCounter) Add(ctx context.Context, n int64, options ...metric.AddOption) {
	c.get().Add(ctx, n, options...)
}

func (c *lateCounter) Enabled(ctx context.Context) bool { return c.get().Enabled(ctx) }

type lateInt64Histogram struct {
	noop.Int64Histogram
	late[metric.Int64Histogram]
}

func (h *lateInt64Histogram) Record(ctx context.Context, v int64, options ...metric.RecordOption) {
	h.get().Record(ctx, v, options...)
}

func (h *lateInt64Histogram) Enabled(ctx context.Context) bool { return h.get().Enabled(ctx) }

type lateFloat64Histogram struct {
	noop.Float64Histogram
	late[metric.Float64Histogram]
}

func (h *lateFloat64Histogram) Record(ctx context.Context, v float64, options ...metric.RecordOption) {
	h.get().Record(ctx, v, options...)
}

func (h *lateFloat64Histogram) Enabled(ctx context.Context) bool { return h.get().Enabled(ctx) }
