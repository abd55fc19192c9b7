package traffic

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.uber.org/zap"
)

// maxRequestMiB is how large a request may be: batches of a Collector are larger than the receiver's default of 4 MiB.
const maxRequestMiB = 64

type receiverConfig struct {
	grpc, http string
	logger     *zap.Logger
}

// host is a Collector without extensions.
type host struct{}

func (host) GetExtensions() map[component.ID]component.Component { return nil }

// startReceiver runs the Collector's own OTLP receiver, for all signals. When it fails nothing is left open.
func startReceiver(ctx context.Context, sink *Sink, rc receiverConfig) (component.Component, error) {
	factory := otlpreceiver.NewFactory()
	cfg, ok := factory.CreateDefaultConfig().(*otlpreceiver.Config)
	if !ok {
		return nil, errors.New("the OTLP receiver has another configuration than expected")
	}
	grpc, http := cfg.Protocols.GRPC.GetOrInsertDefault(), cfg.Protocols.HTTP.GetOrInsertDefault()
	grpc.NetAddr.Endpoint = rc.grpc
	grpc.MaxRecvMsgSizeMiB = maxRequestMiB
	http.ServerConfig.NetAddr.Endpoint = rc.http
	http.ServerConfig.MaxRequestBodySize = maxRequestMiB << 20
	settings := receiver.Settings{ID: component.NewID(factory.Type()), TelemetrySettings: nopTelemetry(rc.logger)}

	// One receiver stands behind the three: the factory finds it by the address of the configuration.
	traces, err := factory.CreateTraces(ctx, settings, cfg, sink)
	if err != nil {
		return nil, fmt.Errorf("create receiver: %w", err)
	}
	_, metricsErr := factory.CreateMetrics(ctx, settings, cfg, sink)
	_, logsErr := factory.CreateLogs(ctx, settings, cfg, sink)
	if err := errors.Join(metricsErr, logsErr); err != nil {
		return nil, errors.Join(err, traces.Shutdown(ctx))
	}
	if err := traces.Start(ctx, host{}); err != nil {
		return nil, errors.Join(err, traces.Shutdown(ctx))
	}
	return traces, nil
}
