package steadyotlpreceiver

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func metricNames(t *testing.T, tel *componenttest.Telemetry) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, tel.Reader.Collect(context.Background(), &all))
	names := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			names[m.Name] = m
		}
	}
	return names
}

// Each generation gets the metrics, spans and logs of its own time, and those before it nothing more.
func TestTelemetryIsThatOfTheCurrentGeneration(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	conn, c := dial(t, g), client(t)
	for n := 1; n <= 3; n++ {
		tel := componenttest.NewTelemetry()
		core, logs := observer.New(zapcore.InfoLevel)
		set := tel.NewTelemetrySettings()
		set.Logger = zap.New(core)
		s := tracesTo(both(g, h))
		s.telemetry = &set
		run := begin(t, s)
		for range n {
			require.NoError(t, export(t.Context(), conn))
			_, err := post(t.Context(), c, "http://"+h+"/v1/traces")
			require.NoError(t, err)
		}
		run.receivers[0].(*steadyReceiver).inner.telemetry.settings(set).Logger.With(zap.Int("n", n)).Info("hello")
		run.stop(t, true)

		names := metricNames(t, tel)
		require.Contains(t, names, "rpc.server.call.duration")
		require.Contains(t, names, "http.server.request.duration")
		require.Contains(t, names, "http.server.request.body.size")
		points := names["otelcol_receiver_accepted_spans"].Data.(metricdata.Sum[int64]).DataPoints
		require.Len(t, points, 2)
		require.EqualValues(t, n, points[0].Value)
		require.EqualValues(t, n, points[1].Value)
		require.GreaterOrEqual(t, len(tel.SpanRecorder.Ended()), 4*n-2) // those of the servers end after the response
		require.Equal(t, fmt.Sprint(n), fmt.Sprint(logs.FilterMessage("hello").All()[0].ContextMap()["n"]))
		if n == 1 {
			require.NotEmpty(t, logs.FilterMessage("Starting GRPC server").All())
		}
		require.NoError(t, tel.Shutdown(context.Background()))
	}
	unpark(t)
}

// strictMeter fails on what lateMeter would silently swallow.
type strictMeter struct {
	metric.Meter
	t *testing.T
}

type strictProvider struct {
	metric.MeterProvider
	t *testing.T
}

func (p strictProvider) Meter(name string, o ...metric.MeterOption) metric.Meter {
	return strictMeter{p.MeterProvider.Meter(name, o...), p.t}
}

func (m strictMeter) Int64UpDownCounter(name string, _ ...metric.Int64UpDownCounterOption) (metric.Int64UpDownCounter, error) {
	return nil, m.unknown(name)
}

func (m strictMeter) Int64Gauge(name string, _ ...metric.Int64GaugeOption) (metric.Int64Gauge, error) {
	return nil, m.unknown(name)
}

func (m strictMeter) Float64Counter(name string, _ ...metric.Float64CounterOption) (metric.Float64Counter, error) {
	return nil, m.unknown(name)
}

func (m strictMeter) Float64UpDownCounter(name string, _ ...metric.Float64UpDownCounterOption) (metric.Float64UpDownCounter, error) {
	return nil, m.unknown(name)
}

func (m strictMeter) Float64Gauge(name string, _ ...metric.Float64GaugeOption) (metric.Float64Gauge, error) {
	return nil, m.unknown(name)
}

func (m strictMeter) RegisterCallback(metric.Callback, ...metric.Observable) (metric.Registration, error) {
	return nil, m.unknown("a callback")
}

func (m strictMeter) unknown(name string) error {
	m.t.Errorf("lateMeter has no instrument of the kind of %s", name)
	return nil
}

func TestTheInnerReceiverUsesKnownInstrumentsOnly(t *testing.T) {
	set := receiver.Settings{ID: component.MustNewID("otlp"), TelemetrySettings: componenttest.NewNopTelemetrySettings()}
	set.MeterProvider = strictProvider{set.MeterProvider, t}
	r, err := otlpreceiver.NewFactory().CreateTraces(t.Context(), set, parse(t, both(freeAddress(t), freeAddress(t))), &sink{})
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, r.Shutdown(t.Context()))
}

// signalCore is as the core that the Collector gives to a component: it can be told to leave the signal out.
type signalCore struct{ zapcore.Core }

func (c signalCore) DropInjectedAttributes(names ...string) zapcore.Core {
	return c.With([]zapcore.Field{zap.Strings("dropped", names)})
}

func TestTheReceiverOfAllSignalsIsNamedAfterNone(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	set := componenttest.NewNopTelemetrySettings()
	set.Logger = zap.New(signalCore{core})
	tel := &telemetry{}
	tel.use(set)
	tel.settings(set).Logger.Info("hello")
	require.Equal(t, []any{"otelcol.signal"}, logs.All()[0].ContextMap()["dropped"])
}
