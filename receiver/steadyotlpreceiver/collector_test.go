package steadyotlpreceiver

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"

	"github.com/collie-otel/collie/internal/reload"
)

// source is a provider of configuration that says when it has another one.
type source struct {
	config string
	change chan confmap.WatcherFunc // holds the one that listens
}

func newSource(config string) *source {
	return &source{config: config, change: make(chan confmap.WatcherFunc, 1)}
}

func (s *source) Scheme() string                 { return "test" }
func (s *source) Shutdown(context.Context) error { return nil }
func (s *source) Retrieve(_ context.Context, _ string, watch confmap.WatcherFunc) (*confmap.Retrieved, error) {
	if watch != nil {
		select {
		case <-s.change:
		default:
		}
		s.change <- watch
	}
	return confmap.NewRetrievedFromYAML([]byte(s.config))
}

// backend is an exporter; what it is told to fail at start fails the generation.
type backend struct {
	sink
	fail bool
}

func (b *backend) Start(context.Context, component.Host) error {
	if b.fail {
		return errors.New("no backend")
	}
	return nil
}
func (b *backend) Shutdown(context.Context) error { return nil }

type collector struct {
	source *source
	fail   atomic.Bool
	spans  atomic.Int64
}

func (c *collector) settings(from *source) otelcol.CollectorSettings {
	return otelcol.CollectorSettings{
		BuildInfo: component.NewDefaultBuildInfo(), DisableGracefulShutdown: true, SkipSettingGRPCLogger: true,
		Factories: func() (otelcol.Factories, error) {
			kind := component.MustNewType("backend")
			exporters := exporter.NewFactory(kind, func() component.Config { return &struct{}{} }, exporter.WithTraces(c.createExporter, component.StabilityLevelAlpha))
			return otelcol.Factories{
				Receivers: map[component.Type]receiver.Factory{NewFactory().Type(): NewFactory()},
				Exporters: map[component.Type]exporter.Factory{kind: exporters},
				Telemetry: otelconftelemetry.NewFactory(),
			}, nil
		},
		ConfigProviderSettings: otelcol.ConfigProviderSettings{ResolverSettings: confmap.ResolverSettings{
			URIs:              []string{"test:"},
			ProviderFactories: []confmap.ProviderFactory{confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider { return from })},
		}},
	}
}

func (c *collector) createExporter(context.Context, exporter.Settings, component.Config) (exporter.Traces, error) {
	b := &backend{fail: c.fail.Load()}
	b.seen = func(context.Context) { c.spans.Add(1) }
	return b, nil
}

// run runs a Collector, as the one of a main is.
func (c *collector) run(t *testing.T) (col *otelcol.Collector, done <-chan error) {
	t.Helper()
	col, err := otelcol.NewCollector(c.settings(c.source))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- col.Run(context.Background()) }()
	return col, ended
}

func awaitRunning(t *testing.T, col *otelcol.Collector, done <-chan error) {
	t.Helper()
	require.Eventually(t, func() bool {
		select {
		case err := <-done:
			require.NoError(t, err, "the Collector has ended")
		default:
		}
		return col.GetState() == otelcol.StateRunning
	}, waitLimit, tick)
}

// The calls are a real Collector's: a reload is told from the end, and dry runs, in between, change nothing. After a
// failed start the process runs another Collector, and the requests that have waited go to that.
func TestARealCollectorReloadsFailsAndEnds(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	config := `{receivers: {otlp: {` + both(g, h) + `}}, exporters: {backend: {}}, service: {telemetry: {metrics: {level: none}, logs: {level: ERROR}},
		pipelines: {traces: {receivers: [otlp], exporters: [backend]}}}}`
	c := &collector{source: newSource(config)}
	col, done := c.run(t)
	awaitRunning(t, col, done)
	conn := dial(t, g)
	require.NoError(t, export(t.Context(), conn))
	for n := range 5 {
		dry, err := otelcol.NewCollector(c.settings(newSource(config)))
		require.NoError(t, err)
		(<-c.source.change)(&confmap.ChangeEvent{})
		require.NoError(t, dry.DryRun(t.Context()))
		require.NoError(t, export(t.Context(), conn))
		require.EqualValues(t, n+2, c.spans.Load())
		awaitRunning(t, col, done)
	}

	c.fail.Store(true)
	(<-c.source.change)(&confmap.ChangeEvent{})
	require.ErrorContains(t, <-done, "no backend")
	require.Len(t, parkedNow(), 1)
	in := parkedNow()[0]
	held := send(t, g)
	awaitHeld(t, in, 1)

	reload.Expect(true) // a boot that fails, which no reload surrounds
	defer reload.Expect(false)
	_, done = c.run(t)
	require.ErrorContains(t, <-done, "no backend")
	require.Equal(t, []*inner{in}, parkedNow())
	c.fail.Store(false)
	col, done = c.run(t)
	require.NoError(t, <-held)
	awaitRunning(t, col, done)
	reload.Expect(false)
	col.Shutdown()
	require.NoError(t, <-done)
	require.Empty(t, parkedNow())
	requireClosed(t, g)
	requireClosed(t, h)
}
