package dryrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"
	"go.opentelemetry.io/collector/service"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"go.uber.org/zap"
)

// config is of all components of these tests: what their Create does.
type config struct {
	Create string `mapstructure:"create"`
}

func defaultConfig() component.Config { return &config{} }

// obey does what a component is told to do when it is created.
func obey(cfg component.Config, block <-chan struct{}) error {
	switch cfg.(*config).Create {
	case "error":
		return errors.New("as configured")
	case "panic":
		panic("as configured")
	case "hang":
		<-block
	}
	return nil
}

// fake is a component that must not be started.
type fake struct {
	t        *testing.T
	shutdown error
}

func (f fake) Start(context.Context, component.Host) error {
	f.t.Error("a dry run has started a component")
	return nil
}
func (f fake) Shutdown(context.Context) error { return f.shutdown }

var testType = component.MustNewType("test")

// checker knows the components test: a receiver and an exporter of traces, and an extension.
func checker(t *testing.T) Checker {
	t.Helper()
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	f := otelcol.Factories{Telemetry: otelconftelemetry.NewFactory()}
	var errs [3]error
	f.Receivers, errs[0] = otelcol.MakeFactoryMap(receiver.NewFactory(testType, defaultConfig, receiver.WithTraces(
		func(_ context.Context, _ receiver.Settings, cfg component.Config, _ consumer.Traces) (receiver.Traces, error) {
			return fake{t: t}, obey(cfg, block)
		}, component.StabilityLevelStable)))
	f.Exporters, errs[1] = otelcol.MakeFactoryMap(exporter.NewFactory(testType, defaultConfig, exporter.WithTraces(
		func(_ context.Context, _ exporter.Settings, cfg component.Config) (exporter.Traces, error) {
			return fakeExporter{fake{t: t}}, obey(cfg, block)
		}, component.StabilityLevelStable)))
	f.Extensions, errs[2] = otelcol.MakeFactoryMap(extension.NewFactory(testType, defaultConfig,
		func(_ context.Context, _ extension.Settings, cfg component.Config) (extension.Extension, error) {
			if cfg.(*config).Create == "no shutdown" {
				return fake{t: t, shutdown: errors.New("not started")}, nil
			}
			return fake{t: t}, obey(cfg, block)
		}, component.StabilityLevelStable))
	require.NoError(t, errors.Join(errs[:]...))
	return Checker{Factories: f, BuildInfo: component.NewDefaultBuildInfo(), Logger: zap.NewNop(), Limit: 5 * time.Second}
}

type fakeExporter struct{ fake }

func (fakeExporter) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (fakeExporter) ConsumeTraces(context.Context, ptrace.Traces) error { return nil }

// host tells its components, as that of a Collector's service does.
type host struct {
	component.Host
	factories otelcol.Factories
}

func (h host) GetModuleInfos() service.ModuleInfos {
	infos := func(types ...component.Type) map[component.Type]service.ModuleInfo {
		m := map[component.Type]service.ModuleInfo{}
		for _, t := range types {
			m[t] = service.ModuleInfo{}
		}
		return m
	}
	return service.ModuleInfos{
		Receiver: infos(slices.Collect(maps.Keys(h.factories.Receivers))...), Exporter: infos(slices.Collect(maps.Keys(h.factories.Exporters))...),
		Extension: infos(testType),
	}
}

func (h host) GetFactory(kind component.Kind, t component.Type) component.Factory {
	switch kind {
	case component.KindReceiver:
		return h.factories.Receivers[t]
	case component.KindExporter:
		return h.factories.Exporters[t]
	case component.KindExtension:
		return h.factories.Extensions[t]
	default:
		return nil
	}
}

// What the host tells is what the Collector was built with, types under their deprecated names included.
func TestFactoriesOfTheHost(t *testing.T) {
	t.Parallel()
	c := checker(t)
	var err error
	renamed := xreceiver.NewFactory(component.MustNewType("new_name"), defaultConfig, xreceiver.WithDeprecatedTypeAlias(component.MustNewType("old_name")))
	c.Factories.Receivers, err = otelcol.MakeFactoryMap[receiver.Factory](c.Factories.Receivers[testType], renamed)
	require.NoError(t, err)
	f, err := Factories(host{factories: c.Factories})
	require.NoError(t, err)
	require.Len(t, f.Receivers, 3)
	require.Len(t, f.Exporters, 1)
	require.Len(t, f.Extensions, 1)

	found := Checker{Factories: f}
	require.ElementsMatch(t, []string{"new_name", "old_name"}, found.Aliases("receivers", "new_name"))
	require.ElementsMatch(t, []string{"new_name", "old_name"}, found.Aliases("receivers", "old_name"))
	for _, kind := range []string{"exporters", "processors", "connectors", "extensions", "no such kind"} {
		require.Equal(t, []string{"new_name"}, found.Aliases(kind, "new_name"), kind)
	}
	require.Equal(t, []string{"not a type"}, found.Aliases("receivers", "not a type"))

	c.Factories.Extensions = nil
	_, err = Factories(host{factories: c.Factories})
	require.ErrorContains(t, err, "no factory for Extension test")
}

const valid = `
receivers: {test: {}}
exporters: {test: {}}
extensions: {test: {}}
service:
  extensions: [test]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [test], exporters: [test]}}
`

// Each URI is a configuration; later ones are merged over earlier ones.
func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		over string // merged over valid
		err  []string
	}{
		{"valid", "", nil},
		{"unknown component", "processors: {no_such: {}}", []string{"no_such"}},
		{"unknown key", "receivers: {test: {no_such_key: 1}}", []string{"no_such_key"}},
		{"unknown pipeline member", "service: {pipelines: {traces: {receivers: [test/2]}}}", []string{"test/2"}},
		{"unsupported signal", "service: {pipelines: {logs: {receivers: [test], exporters: [test]}}}", []string{"logs"}},
		{"reference to nothing", `receivers: {test: {create: "${file:/no/such/file}"}}`, []string{"/no/such/file"}},
		{"receiver fails", "receivers: {test: {create: error}}", []string{"as configured"}},
		{"exporter fails", "exporters: {test: {create: error}}", []string{"as configured"}},
		{"receiver panics", "receivers: {test: {create: panic}}", []string{"panics when it is created", "as configured"}},
		{"extension fails", "extensions: {test: {create: error}}", []string{"extensions::test", "as configured"}},
		{"extension panics", "extensions: {test: {create: panic}}", []string{"panics when it is created"}},
		{"extension that cannot be shut down", "extensions: {test: {create: no shutdown}}", []string{"extensions::test", "not started"}},
		{"extension is not declared", "service: {extensions: [test, test/2]}", []string{"test/2"}},
		{"two mistakes", "{extensions: {test: {create: error}}, service: {telemetry: {logs: {encoding: no_such}}}}", []string{"extensions::test", "service::telemetry::logs", "no_such"}},
		{"log level", "service: {telemetry: {logs: {level: loud}}}", []string{"loud"}},
		{"log file", "service: {telemetry: {logs: {output_paths: [/no/such/folder/log]}}}", []string{"service::telemetry::logs", "/no/such/folder/log"}},
		{"traces", "service: {telemetry: {traces: {processors: [{batch: {exporter: {otlp: {protocol: no_such, endpoint: x}}}}]}}}", []string{"service::telemetry::traces", "no_such"}},
		{"metrics", "service: {telemetry: {metrics: {level: normal, readers: [{periodic: {exporter: {otlp: {protocol: no_such, endpoint: x}}}}]}}}", []string{"service::telemetry::metrics", "no_such"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			result, err := checker(t).Check(t.Context(), Source{URIs: []string{"yaml:" + valid, "yaml:" + tt.over}})
			if tt.err == nil {
				require.NoError(t, err)
				require.NotNil(t, result.Effective)
				return
			}
			for _, part := range tt.err {
				require.ErrorContains(t, err, part)
			}
		})
	}
}

// A component that hangs costs a goroutine, not the agent.
func TestCheckThatHangs(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"receivers", "exporters", "extensions"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := checker(t)
			c.Limit = 50 * time.Millisecond
			_, err := c.Check(t.Context(), Source{URIs: []string{"yaml:" + valid, "yaml:" + kind + ": {test: {create: hang}}"}})
			require.ErrorContains(t, err, "not ended within 50ms: a component hangs when it is created")
		})
	}
}

// A check that is called off says nothing about the configuration.
func TestCheckIsCalledOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := checker(t).Check(ctx, Source{URIs: []string{"yaml:" + valid, "yaml:receivers: {test: {create: hang}}"}})
	require.ErrorIs(t, err, context.Canceled)
}

// The port of the own metrics is taken, by the service that runs: a dry run does not want it.
func TestCheckOpensNoPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	over := "service: {telemetry: {metrics: {level: normal, readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: " + port + "}}}}]}}}"
	_, err = checker(t).Check(t.Context(), Source{URIs: []string{"yaml:" + valid, "yaml:" + over}})
	require.NoError(t, err)
}

// The candidate stands for the URI of its scheme; what the command line names beside it is merged in order.
func TestCandidateBesideAnotherFile(t *testing.T) {
	t.Parallel()
	other := filepath.Join(t.TempDir(), "other.yaml")
	require.NoError(t, os.WriteFile(other, []byte(valid), 0o600))
	candidate := map[string]any{"receivers": map[string]any{"test": map[string]any{"create": "$${x}"}}}
	for name, uris := range map[string][]string{"candidate last": {other, "opamp:/base.yaml"}, "candidate first": {"opamp:/base.yaml", other}} {
		result, err := checker(t).Check(t.Context(), Source{URIs: uris, Candidate: candidate})
		require.NoError(t, err, name)
		require.Equal(t, "${x}", result.Effective.Get("receivers::test::create"), name)
		require.Equal(t, "$${x}", result.Unexpanded.Get("receivers::test::create"), name)
	}
}

func TestUnexpandedKeepsReferences(t *testing.T) {
	t.Setenv("CREATE", "resolved")
	result, err := checker(t).Resolve(t.Context(), Source{URIs: []string{"yaml:" + valid, `yaml:receivers: {test: {create: "${env:CREATE}"}}`}})
	require.NoError(t, err)
	require.Equal(t, "resolved", result.Effective.Get("receivers::test::create"))
	require.Equal(t, "${env:CREATE}", result.Unexpanded.Get("receivers::test::create"))
	_, err = Source{URIs: []string{"/no/such/file"}}.Unexpanded(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Source{URIs: []string{"yaml:["}}.Unexpanded(t.Context())
	require.Error(t, err)
}

// pushed is telemetry of all three signals that goes to an endpoint.
func pushed(endpoint string) string {
	exporter := fmt.Sprintf("{exporter: {otlp: {protocol: http/protobuf, endpoint: %q}}}", endpoint)
	return fmt.Sprintf("service: {telemetry: {metrics: {level: normal, readers: [{periodic: %[1]s}]}, traces: {processors: [{batch: %[1]s}]}, logs: {processors: [{batch: %[1]s}]}}}", exporter)
}

// A hundred checks leave nothing behind that runs.
func TestCheckLeavesNothingRunning(t *testing.T) {
	c := checker(t)
	source := Source{URIs: []string{"yaml:" + valid, "yaml:" + pushed("http://127.0.0.1:1")}}
	_, err := c.Check(t.Context(), source)
	require.NoError(t, err)
	before := runtime.NumGoroutine()
	for range 100 {
		_, err := c.Check(t.Context(), source)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+5 }, 5*time.Second, 10*time.Millisecond, "%d goroutines were %d", runtime.NumGoroutine(), before)
}

// Ending what was created sends nothing either.
func TestCheckConnectsToNothing(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	_, err = checker(t).Check(t.Context(), Source{URIs: []string{"yaml:" + valid, "yaml:" + pushed("http://"+listener.Addr().String())}})
	require.NoError(t, err)
	own, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = own.Close() }()
	first, err := listener.Accept()
	require.NoError(t, err)
	defer func() { _ = first.Close() }()
	require.Equal(t, own.LocalAddr().String(), first.RemoteAddr().String(), "there was a connection before")
}

// The same mistake has the same words, whatever the order in which the core lists what it knows.
func TestWordsAreSteady(t *testing.T) {
	t.Parallel()
	cause := errors.New("x")
	a := steady(fmt.Errorf("decoding failed due to:\n\n'processors' unknown type: \"n\" (valid values: [b a c]): %w", cause))
	b := steady(fmt.Errorf("decoding failed due to:\n\n'processors' unknown type: \"n\" (valid values: [c b a]): %w", cause))
	require.Equal(t, a.Error(), b.Error())
	require.Equal(t, `decoding failed due to: 'processors' unknown type: "n" (valid values: [a b c]): x`, a.Error())
	require.ErrorIs(t, a, cause)
	require.NoError(t, steady(nil))
}
