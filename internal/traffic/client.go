package traffic

import (
	"context"
	"maps"
	"slices"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
)

// Codes of requests without an answer. Answers that refuse have the codes "grpc <Name>" and "http <status>".
const (
	codeConnect  = "connect"  // no connection
	codeReset    = "reset"    // the connection went away before the answer
	codeDeadline = "deadline" // no answer within the timeout
)

// outcome is what became of one request.
type outcome struct {
	code     string // empty when acknowledged
	answered bool   // the server said so itself
	message  string
	rejected int64 // spans refused by a partial success; code is empty
}

// client sends requests to numbered endpoints. It is safe for concurrent use.
type client interface {
	export(ctx context.Context, endpoint int, request ptraceotlp.ExportRequest) outcome
	close() error
}

func newClient(ctx context.Context, cfg LoadConfig) (client, error) {
	if cfg.Protocol == ProtocolHTTP {
		return newHTTPClient(ctx, cfg)
	}
	return newGRPCClient(ctx, cfg)
}

// nopTelemetry is what components get that are to say nothing about themselves.
func nopTelemetry(logger *zap.Logger) component.TelemetrySettings {
	if logger == nil {
		logger = zap.NewNop()
	}
	return component.TelemetrySettings{
		Logger:         logger,
		TracerProvider: nooptrace.NewTracerProvider(),
		MeterProvider:  noopmetric.NewMeterProvider(),
		Resource:       pcommon.NewResource(),
	}
}

func clientTLS(cfg *configtls.ClientConfig) configtls.ClientConfig {
	if cfg == nil {
		return configtls.ClientConfig{Insecure: true}
	}
	return *cfg
}

func headerList(headers map[string]string) configopaque.MapList {
	var list configopaque.MapList
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		list = append(list, configopaque.Pair{Name: name, Value: configopaque.String(headers[name])})
	}
	return list
}
