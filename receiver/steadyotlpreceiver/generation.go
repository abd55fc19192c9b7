package steadyotlpreceiver

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configmiddleware"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

// generation is what one configuration gives to an inner receiver.
type generation struct {
	consumers
	grpcAuth extensionauth.Server // nil unless configured
	httpAuth extensionauth.Server // nil unless configured
	limiters []limiter            // the gRPC middlewares
	http     http.Handler         // the HTTP middlewares, and behind them the paths that are served
}

// limiter is what the memory limiter extension offers. It is the one gRPC middleware whose work can be done without the
// server options that it returns, which are of a server's making and cannot be changed later.
type limiter interface{ MustRefuse() bool }

// limiters returns the middlewares if all of them are limiters.
func limiters(middlewares []configmiddleware.Config, extensions map[component.ID]component.Component) ([]limiter, bool) {
	var all []limiter
	for _, m := range middlewares {
		l, ok := extensions[m.ID].(limiter)
		if !ok {
			return nil, false
		}
		all = append(all, l)
	}
	return all, true
}

// bind does all of a generation that can fail.
func (in *inner) bind(ctx context.Context, r *steadyReceiver, host component.Host) (*generation, error) {
	gen := &generation{consumers: r.next}
	extensions := host.GetExtensions()
	var err error
	if g := r.cfg.Protocols.GRPC.Get(); g != nil {
		gen.limiters, _ = limiters(g.Middlewares, extensions)
		if g.Auth.HasValue() {
			if gen.grpcAuth, err = g.Auth.Get().GetServerAuthenticator(ctx, extensions); err != nil {
				return nil, err
			}
		}
	}
	h := r.cfg.Protocols.HTTP.Get()
	if h == nil {
		return gen, nil
	}
	if h.ServerConfig.Auth.HasValue() {
		if gen.httpAuth, err = h.ServerConfig.Auth.Get().Config.GetServerAuthenticator(ctx, extensions); err != nil {
			return nil, err
		}
	}
	if gen.http, err = in.route(h, gen); err != nil {
		return nil, err
	}
	for _, m := range slices.Backward(h.ServerConfig.Middlewares) {
		wrap, err := m.GetHTTPServerHandler(ctx, extensions)
		if err != nil {
			return nil, err
		}
		if gen.http, err = wrap(ctx, gen.http); err != nil {
			return nil, err
		}
	}
	return gen, nil
}

// route sends the paths of the signals that are in a pipeline to the inner receiver, and none else.
func (in *inner) route(h *otlpreceiver.HTTPConfig, gen *generation) (mux *http.ServeMux, err error) {
	defer func() {
		if wrong := recover(); wrong != nil { // two signals on one path
			err = fmt.Errorf("http: %v", wrong)
		}
	}()
	mux = http.NewServeMux()
	for _, s := range []struct {
		served   bool
		path, to string
	}{
		{gen.traces != nil, string(h.TracesURLPath), tracesPath},
		{gen.metrics != nil, string(h.MetricsURLPath), metricsPath},
		{gen.logs != nil, string(h.LogsURLPath), logsPath},
		{gen.profiles != nil, profilesPath, profilesPath},
	} {
		if s.served {
			mux.Handle(s.path, sendTo(s.path, s.to, in.handler))
		}
	}
	return mux, nil
}

func sendTo(path, to string, next http.Handler) http.Handler {
	if path == to {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, address := *r, *r.URL
		address.Path, address.RawPath = to, ""
		sent.URL = &address
		next.ServeHTTP(w, &sent)
	})
}

// serves says whether a gRPC service's signal is in a pipeline. What is none of ours is left to the server.
func (gen *generation) serves(method string) (service string, ok bool) {
	service, _, _ = strings.Cut(strings.TrimPrefix(method, "/"), "/")
	switch service {
	case "opentelemetry.proto.collector.trace.v1.TraceService":
		ok = gen.traces != nil
	case "opentelemetry.proto.collector.metrics.v1.MetricsService":
		ok = gen.metrics != nil
	case "opentelemetry.proto.collector.logs.v1.LogsService":
		ok = gen.logs != nil
	case "opentelemetry.proto.collector.profiles.v1development.ProfilesService":
		ok = gen.profiles != nil
	default:
		ok = true
	}
	return service, ok
}

func grpcAuth(gen *generation) extensionauth.Server { return gen.grpcAuth }

func httpAuth(gen *generation) extensionauth.Server { return gen.httpAuth }
