package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/config/configcompression"
	"go.opentelemetry.io/collector/config/configgrpc"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// grpcClient holds one connection per endpoint, shared by all workers, as one process with an SDK would.
type grpcClient struct {
	conns   []*grpc.ClientConn
	clients []ptraceotlp.GRPCClient
}

func newGRPCClient(ctx context.Context, cfg LoadConfig) (*grpcClient, error) {
	c := &grpcClient{}
	var options []configgrpc.ToClientConnOption
	if cfg.Reconnect > 0 {
		pace := backoff.Config{BaseDelay: min(50*time.Millisecond, cfg.Reconnect), Multiplier: 1.6, Jitter: 0.2, MaxDelay: cfg.Reconnect}
		options = append(options, configgrpc.WithGrpcDialOption(grpc.WithConnectParams(
			grpc.ConnectParams{Backoff: pace, MinConnectTimeout: cfg.Timeout})))
	}
	for _, endpoint := range cfg.Endpoints {
		settings := configgrpc.NewDefaultClientConfig()
		settings.Endpoint = endpoint
		settings.TLS = clientTLS(cfg.TLS)
		settings.Headers = headerList(cfg.Headers)
		settings.Compression = configcompression.Type(cfg.Compression)
		settings.WriteBufferSize = 512 * 1024
		conn, err := settings.ToClientConn(ctx, nil, nopTelemetry(nil), options...)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connect to %s: %w", endpoint, err), c.close())
		}
		c.conns = append(c.conns, conn)
		c.clients = append(c.clients, ptraceotlp.NewGRPCClient(conn))
	}
	return c, nil
}

func (c *grpcClient) export(ctx context.Context, endpoint int, request ptraceotlp.ExportRequest) outcome {
	var header, trailer metadata.MD
	var server peer.Peer
	response, err := c.clients[endpoint].Export(ctx, request, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&server))
	if err == nil {
		partial := response.PartialSuccess()
		return outcome{rejected: partial.RejectedSpans(), message: partial.ErrorMessage()}
	}
	st := status.Convert(err)
	out := outcome{message: st.Message()}
	// grpc-go uses the same status codes for what it makes up itself; only an answer has headers or trailers. A deadline
	// travels with the request and ends on both sides at once: which side reports it is chance.
	switch {
	case st.Code() == codes.DeadlineExceeded:
		out.code = codeDeadline
	case len(header)+len(trailer) > 0:
		out.answered, out.code = true, "grpc "+st.Code().String()
	case server.Addr == nil:
		out.code = codeConnect
	default:
		out.code = codeReset
	}
	return out
}

func (c *grpcClient) close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
