package dryrun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/otelcol"
	"go.opentelemetry.io/collector/pdata/pcommon"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
)

// defaultLimit is how long a dry run may take. Milliseconds are usual; a component that hangs when it is created must not
// hold up the agent.
const defaultLimit = 30 * time.Second

// Checker checks configurations.
type Checker struct {
	// Factories are the host's; Fresh, if it is there, makes them anew for each check: some factories remember every
	// configuration that they have seen, such as that of memory_limiter.
	Factories otelcol.Factories
	Fresh     func() (otelcol.Factories, error)
	BuildInfo component.BuildInfo
	Logger    *zap.Logger
	// Limit is how long a check may take; 0 is 30 s.
	Limit time.Duration
}

// Result is what a configuration comes to.
type Result struct {
	// Effective is the configuration with defaults and resolved references; values that the Collector knows to be
	// secret are redacted.
	Effective *confmap.Conf
	// Unexpanded is the configuration with its references.
	Unexpanded *confmap.Conf
}

// Check resolves a configuration, creates all that it consists of, and throws it away again. A component that panics is an
// error, and so is one that does not come back within the limit; its goroutine is lost then.
func (c Checker) Check(ctx context.Context, source Source) (*Result, error) {
	limit := cmp.Or(c.Limit, defaultLimit)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var result *Result
	done := make(chan error, 1) // of an abandoned check nobody reads
	go func() {
		r, err := c.guarded(ctx, source)
		result = r
		done <- steady(err)
	}()
	select {
	case err := <-done:
		return result, err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("the check has not ended within %v: a component hangs when it is created", limit)
	}
}

// guarded turns a panic into an error, with the place in the log.
func (c Checker) guarded(ctx context.Context, source Source) (result *Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.Logger.Error("A component panicked in a dry run.", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = fmt.Errorf("a component panics when it is created: %v", p)
		}
	}()
	return c.check(ctx, source)
}

func (c Checker) check(ctx context.Context, source Source) (*Result, error) {
	if c.Fresh != nil {
		fresh, err := c.Fresh()
		if err != nil {
			return nil, err
		}
		c.Factories = fresh
	}
	collector, err := otelcol.NewCollector(otelcol.CollectorSettings{
		BuildInfo:              c.BuildInfo,
		Factories:              func() (otelcol.Factories, error) { return c.Factories, nil },
		ConfigProviderSettings: source.Settings(),
		SkipSettingGRPCLogger:  true,
	})
	if err != nil {
		return nil, err
	}
	if err := collector.DryRun(ctx); err != nil {
		return nil, err
	}
	cfg, result, err := c.resolve(ctx, source)
	if err != nil {
		return nil, err
	}
	return result, errors.Join(c.createExtensions(ctx, cfg), c.createTelemetry(ctx, cfg.Service.Telemetry))
}

// Resolve is Check without the check.
func (c Checker) Resolve(ctx context.Context, source Source) (*Result, error) {
	_, result, err := c.resolve(ctx, source)
	return result, err
}

func (c Checker) resolve(ctx context.Context, source Source) (*otelcol.Config, *Result, error) {
	provider, err := otelcol.NewConfigProvider(source.Settings())
	if err != nil {
		return nil, nil, err
	}
	cfg, err := provider.Get(ctx, c.Factories)
	if err = errors.Join(err, provider.Shutdown(ctx)); err != nil {
		return nil, nil, err
	}
	result := &Result{Effective: confmap.New()}
	if err := result.Effective.Marshal(cfg); err != nil {
		return nil, nil, err
	}
	result.Unexpanded, err = source.Unexpanded(ctx)
	return cfg, result, err
}

// createExtensions does what DryRun leaves out. Extensions are created and, as their contract allows, shut down without
// having been started.
func (c Checker) createExtensions(ctx context.Context, cfg *otelcol.Config) error {
	var errs error
	for _, id := range cfg.Service.Extensions {
		factory, ok := c.Factories.Extensions[id.Type()]
		if !ok {
			errs = errors.Join(errs, fmt.Errorf("service::extensions: unknown type %q", id.Type()))
			continue
		}
		set := extension.Settings{ID: id, BuildInfo: c.BuildInfo, TelemetrySettings: component.TelemetrySettings{
			Logger: zap.NewNop(), TracerProvider: nooptrace.NewTracerProvider(),
			MeterProvider: noopmetric.NewMeterProvider(), Resource: pcommon.NewResource(),
		}}
		created, err := factory.Create(ctx, set, cfg.Extensions[id])
		if err == nil {
			err = created.Shutdown(ctx)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("extensions::%v: %w", id, err))
		}
	}
	return errs
}
