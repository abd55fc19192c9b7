package steadyotlpreceiver

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// ticket goes with a request from hook to hook. Only the goroutine of the request touches it.
type ticket struct {
	err     error // the request was not let in; the next hook that can answer does
	gen     *generation
	auth    func(*generation) extensionauth.Server // set when gen has authenticated the sender by the sources
	sources map[string][]string
}

type ticketKey struct{}

func ticketOf(ctx context.Context) *ticket {
	t, _ := ctx.Value(ticketKey{}).(*ticket)
	return t
}

// hook takes the place of an authenticator: it asks the one of the current generation.
type hook struct {
	component.StartFunc
	component.ShutdownFunc
	in   *inner
	auth func(*generation) extensionauth.Server
}

// Authenticate is the first that we see of an HTTP request, before its body is touched. A request that is not let in goes
// on without an error, which would be answered with 401 and make clients drop their data: the hook behind answers it, and
// the consumer takes none with such a ticket.
func (h hook) Authenticate(ctx context.Context, sources map[string][]string) (context.Context, error) {
	t := ticketOf(ctx)
	if t == nil {
		t = &ticket{}
		ctx = context.WithValue(ctx, ticketKey{}, t)
	}
	if t.err != nil {
		return ctx, nil
	}
	// Within the gate: an extension is not asked while it is being shut down.
	if t.gen, t.err = h.in.gate.enter(ctx); t.err != nil {
		return ctx, nil
	}
	defer h.in.gate.leave()
	t.auth, t.sources = h.auth, sources
	return h.auth(t.gen).Authenticate(ctx, sources)
}

// httpHook is an authenticator, and the first of the HTTP middlewares.
type httpHook struct{ hook }

var _ extensionmiddleware.HTTPServer = httpHook{}

// GetHTTPHandler returns what holds requests before the body is read.
func (h httpHook) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, next http.Handler) (http.Handler, error) {
		h.in.handler = next
		return http.HandlerFunc(h.serve), nil
	}, nil
}

func (h httpHook) serve(w http.ResponseWriter, r *http.Request) {
	if t := ticketOf(r.Context()); t != nil && t.err != nil {
		answer(w, r, t.err)
		return
	}
	gen, err := h.in.gate.pass(r.Context())
	if err != nil {
		answer(w, r, err)
		return
	}
	gen.http.ServeHTTP(w, r)
}

// answer says in the client's encoding that it shall try again.
func answer(w http.ResponseWriter, r *http.Request, err error) {
	message, contentType := status.Convert(err).Proto(), "application/x-protobuf"
	body, _ := proto.Marshal(message)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		contentType = "application/json"
		body, _ = protojson.Marshal(message)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = w.Write(body)
}

// grpcHook is an authenticator, and the first of the gRPC middlewares. Of all that a server calls, a stats handler is the
// only one that runs on the request's own goroutine before the message is read.
type grpcHook struct{ hook }

var _ extensionmiddleware.GRPCServer = grpcHook{}

// GetGRPCServerOptions returns what holds calls before the message is read, and what answers those that are not let in.
func (h grpcHook) GetGRPCServerOptions(context.Context) ([]grpc.ServerOption, error) {
	return []grpc.ServerOption{grpc.StatsHandler(h), grpc.ChainUnaryInterceptor(h.intercept)}, nil
}

// TagRPC gives each call a ticket.
func (h grpcHook) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, ticketKey{}, &ticket{})
}

// HandleRPC holds a call at its beginning: nothing but headers has been looked at.
func (h grpcHook) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, begins := event.(*stats.Begin); begins {
		_, ticketOf(ctx).err = h.in.gate.pass(ctx)
	}
}

// TagConn is of no use here.
func (grpcHook) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn is of no use here.
func (grpcHook) HandleConn(context.Context, stats.ConnStats) {}

func (h grpcHook) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if t := ticketOf(ctx); t.err != nil {
		return nil, t.err
	}
	gen, err := h.in.gate.pass(ctx)
	if err != nil {
		return nil, err
	}
	if service, ok := gen.serves(info.FullMethod); !ok {
		return nil, status.Errorf(codes.Unimplemented, "unknown service %v", service)
	}
	for _, l := range gen.limiters {
		if l.MustRefuse() {
			return nil, status.Error(codes.ResourceExhausted, "RESOURCE_EXHAUSTED")
		}
	}
	return next(ctx, req)
}
