package steadyotlpreceiver

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/xreceiver"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// inner is the Collector's own OTLP receiver with its sockets, and what binds it to the current generation. It belongs to
// the receiver that it serves, or to the process while it is parked.
type inner struct {
	identity  identity
	upstream  component.Component
	gate      *gate
	host      *host
	telemetry telemetry
	handler   http.Handler // behind our HTTP middleware
	broken    atomic.Bool  // a server has failed: not to be used again
	linger    *time.Timer  // set while parked
}

// startInner opens the sockets for r. Its gate is closed.
func startInner(ctx context.Context, r *steadyReceiver, host component.Host) (*inner, error) {
	in := &inner{identity: identify(r, host.GetExtensions()), gate: newGate()}
	if err := in.identity.checkTLS(ctx); err != nil {
		return nil, err
	}
	in.telemetry.use(r.set.TelemetrySettings)
	if err := in.create(ctx, r.set); err != nil {
		return nil, err
	}
	in.host = in.startHost(host)
	if err := in.upstream.Start(ctx, in.host); err != nil {
		return nil, errors.Join(err, in.upstream.Shutdown(ctx))
	}
	return in, nil
}

// create has the inner receiver serve all signals: which of them have a pipeline changes from generation to generation.
func (in *inner) create(ctx context.Context, set receiver.Settings) error {
	factory := otlpreceiver.NewFactory().(xreceiver.Factory)
	set.TelemetrySettings = in.telemetry.settings(set.TelemetrySettings)
	cfg := in.identity.cfg // the receiver writes defaults into its own
	var err error
	if in.upstream, err = factory.CreateTraces(ctx, set, &cfg, in); err != nil {
		return err
	}
	// These only add a consumer to what the first call has made.
	_, err1 := factory.CreateMetrics(ctx, set, &cfg, in)
	_, err2 := factory.CreateLogs(ctx, set, &cfg, in)
	_, err3 := factory.CreateProfiles(ctx, set, &cfg, in)
	if err := errors.Join(err1, err2, err3); err != nil {
		return errors.Join(err, in.upstream.Shutdown(ctx))
	}
	return nil
}

// startHost offers what the inner receiver asks for in its start: our own hooks, and the middlewares that it got as they are.
func (in *inner) startHost(of component.Host) *host {
	extensions := maps.Clone(of.GetExtensions())
	if extensions == nil {
		extensions = map[component.ID]component.Component{}
	}
	extensions[grpcHookID] = grpcHook{hook: hook{in: in, auth: grpcAuth}}
	extensions[httpHookID] = httpHook{hook: hook{in: in, auth: httpAuth}}
	h := &host{in: in, extensions: extensions}
	h.add(of)
	return h
}

// serve makes gen the current generation.
func (in *inner) serve(gen *generation, r *steadyReceiver, host component.Host) {
	in.telemetry.use(r.set.TelemetrySettings)
	in.host.clear()
	in.host.add(host)
	in.gate.serve(gen)
}

func (in *inner) shutdown(ctx context.Context) error { return in.upstream.Shutdown(ctx) }

// Capabilities says that the data is handed on as it is.
func (*inner) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

// ConsumeTraces hands the data to the current generation, as the other three do.
func (in *inner) ConsumeTraces(ctx context.Context, td ptrace.Traces) error {
	ctx, gen, err := in.enter(ctx)
	if err != nil {
		return err
	}
	defer in.gate.leave()
	if gen.traces == nil {
		return errNoPipeline
	}
	return gen.traces.ConsumeTraces(ctx, td)
}

// ConsumeMetrics is ConsumeTraces for metrics.
func (in *inner) ConsumeMetrics(ctx context.Context, md pmetric.Metrics) error {
	ctx, gen, err := in.enter(ctx)
	if err != nil {
		return err
	}
	defer in.gate.leave()
	if gen.metrics == nil {
		return errNoPipeline
	}
	return gen.metrics.ConsumeMetrics(ctx, md)
}

// ConsumeLogs is ConsumeTraces for logs.
func (in *inner) ConsumeLogs(ctx context.Context, ld plog.Logs) error {
	ctx, gen, err := in.enter(ctx)
	if err != nil {
		return err
	}
	defer in.gate.leave()
	if gen.logs == nil {
		return errNoPipeline
	}
	return gen.logs.ConsumeLogs(ctx, ld)
}

// ConsumeProfiles is ConsumeTraces for profiles.
func (in *inner) ConsumeProfiles(ctx context.Context, pd pprofile.Profiles) error {
	ctx, gen, err := in.enter(ctx)
	if err != nil {
		return err
	}
	defer in.gate.leave()
	if gen.profiles == nil {
		return errNoPipeline
	}
	return gen.profiles.ConsumeProfiles(ctx, pd)
}

// errNoPipeline answers a request that came for a signal which a reload took away while the request was being read.
var errNoPipeline = status.Error(codes.Unimplemented, "the signal is in no pipeline any more")

// enter brings a request, its data decoded, into the current generation; the caller leaves the gate. Who sent it has to
// prove it again if another generation has let it in.
func (in *inner) enter(ctx context.Context) (context.Context, *generation, error) {
	t := ticketOf(ctx)
	if t != nil && t.err != nil {
		return nil, nil, t.err
	}
	gen, err := in.gate.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	if t != nil && t.auth != nil && t.gen != gen {
		if ctx, err = t.auth(gen).Authenticate(ctx, t.sources); err != nil {
			in.gate.leave()
			return nil, nil, status.Error(codes.Unauthenticated, err.Error())
		}
	}
	return ctx, gen, nil
}
