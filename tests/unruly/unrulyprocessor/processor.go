// Package unrulyprocessor is a test-only processor that passes traces on and misbehaves as configured.
package unrulyprocessor

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor"

	"github.com/collie-otel/collie/tests/unruly"
)

// NewFactory creates the factory of the processor unruly.
func NewFactory() processor.Factory {
	return processor.NewFactory(component.MustNewType("unruly"), func() component.Config { return &unruly.Config{} },
		processor.WithTraces(create, component.StabilityLevelDevelopment))
}

func create(_ context.Context, _ processor.Settings, cfg component.Config, next consumer.Traces) (processor.Traces, error) {
	c, err := unruly.New(cfg.(*unruly.Config))
	return &traces{c, next}, err
}

type traces struct {
	component *unruly.Component
	next      consumer.Traces
}

func (t *traces) Start(_ context.Context, host component.Host) error { return t.component.Start(host) }

func (t *traces) Shutdown(context.Context) error { return t.component.Shutdown() }

func (t *traces) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

func (t *traces) ConsumeTraces(ctx context.Context, td ptrace.Traces) error {
	t.component.Span()
	return t.next.ConsumeTraces(ctx, td)
}
