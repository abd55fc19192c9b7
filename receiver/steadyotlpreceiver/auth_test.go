package steadyotlpreceiver

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"go.opentelemetry.io/collector/extension/extensionmiddleware"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// extension is all that an extension may be to a receiver; the fields say what this one is.
type extension struct {
	component.StartFunc
	component.ShutdownFunc
}

type tokenAuth struct {
	extension
	token string
	asked chan struct{} // set to learn of the first call
	wait  chan struct{} // set to have it wait
	gone  atomic.Bool   // the extension is shut down
}

var errToken = errors.New("wrong token")

func (a *tokenAuth) Authenticate(ctx context.Context, sources map[string][]string) (context.Context, error) {
	if a.gone.Load() {
		return nil, errors.New("asked after its end")
	}
	if a.asked != nil {
		close(a.asked)
		<-a.wait
	}
	for _, name := range []string{"token", "Token"} {
		if v := sources[name]; len(v) == 1 && v[0] == a.token {
			return ctx, nil
		}
	}
	return nil, errToken
}

var _ extensionauth.Server = (*tokenAuth)(nil)

func id(name string) component.ID { return component.MustNewID(name) }

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "token", token)
}

func authenticated(g, h, who string) string {
	return `{protocols: {grpc: {endpoint: "` + g + `", auth: {authenticator: ` + who + `}}, http: {endpoint: "` + h + `", auth: {authenticator: ` + who + `}}}}`
}

func beginWith(t *testing.T, extensions map[component.ID]component.Component, s spec) *running {
	t.Helper()
	run := create(t, newHost(extensions), s)
	require.NoError(t, run.start(t))
	return run
}

func TestNewCredentialsHoldFromTheFirstRequestOn(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	conn, c := dial(t, g), client(t)
	old, s := &tokenAuth{token: "old"}, tracesTo(authenticated(g, h, "one"))
	run := beginWith(t, map[component.ID]component.Component{id("one"): old}, s)
	in := run.receivers[0].(*steadyReceiver).inner
	require.NoError(t, export(withToken(t.Context(), "old"), conn))
	require.Equal(t, codes.Unauthenticated, status.Code(export(withToken(t.Context(), "new"), conn)))
	_, err := post(t.Context(), c, "http://"+h+"/v1/traces", "token", "old")
	require.NoError(t, err)

	run.stop(t, true)
	old.gone.Store(true)
	results := make(chan codes.Code, 2)
	statuses := make(chan int, 2)
	held := func(token string) (func(), func()) {
		return func() { results <- status.Code(export(withToken(context.Background(), token), conn)) }, func() {
			response, _ := post(context.Background(), c, "http://"+h+"/v1/traces", "token", token)
			statuses <- response.StatusCode
		}
	}
	for _, token := range []string{"old", "new"} {
		overGRPC, overHTTP := held(token)
		go overGRPC()
		go overHTTP()
	}
	awaitHeld(t, in, 4)

	s.config = authenticated(g, h, "two") // another authenticator: the sockets stay
	run = beginWith(t, map[component.ID]component.Component{id("two"): &tokenAuth{token: "new"}}, s)
	require.Same(t, in, run.receivers[0].(*steadyReceiver).inner)
	require.ElementsMatch(t, []codes.Code{codes.OK, codes.Unauthenticated}, []codes.Code{<-results, <-results})
	require.ElementsMatch(t, []int{http.StatusOK, http.StatusUnauthorized}, []int{<-statuses, <-statuses})
	require.Equal(t, codes.Unauthenticated, status.Code(export(withToken(t.Context(), "old"), conn)))
	run.stop(t, true)

	s.config = both(g, h) // none any more: new sockets
	run = begin(t, s)
	require.NotSame(t, in, run.receivers[0].(*steadyReceiver).inner)
	require.NoError(t, export(t.Context(), dial(t, g)))
	run.stop(t, true)

	s.config = authenticated(g, h, "one")
	run = beginWith(t, map[component.ID]component.Component{id("one"): &tokenAuth{token: "old"}}, s)
	require.Equal(t, codes.Unauthenticated, status.Code(export(t.Context(), dial(t, g))))
	run.stop(t, false)
}

// A request that was let in by one generation, and gets to the pipelines of the next, has to be let in by that, too.
func TestCredentialsAreAskedForAgain(t *testing.T) {
	for _, now := range []string{"old", "new"} {
		in := &inner{gate: newGate()}
		in.gate.serve(&generation{grpcAuth: &tokenAuth{token: "old"}})
		ctx, err := hook{in: in, auth: grpcAuth}.Authenticate(t.Context(), map[string][]string{"token": {"old"}})
		require.NoError(t, err)
		require.NoError(t, in.gate.close(t.Context()))
		next := &sink{}
		in.gate.serve(&generation{grpcAuth: &tokenAuth{token: now}, consumers: consumers{traces: next}})
		err = in.ConsumeTraces(ctx, traces().Traces())
		if now == "old" {
			require.NoError(t, err)
		} else {
			require.Equal(t, codes.Unauthenticated, status.Code(err))
			require.Zero(t, next.spans.Load())
		}
		require.Zero(t, in.gate.inFlight)
	}
}

// No extension is shut down while it is being asked.
func TestTheGateWaitsForAuthenticators(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	slow := &tokenAuth{token: "a", asked: make(chan struct{}), wait: make(chan struct{})}
	run := beginWith(t, map[component.ID]component.Component{id("one"): slow}, tracesTo(authenticated(g, h, "one")))
	conn, done := dial(t, g), make(chan error, 1)
	go func() { done <- export(withToken(context.Background(), "a"), conn) }()
	<-slow.asked
	in, stopped := run.receivers[0].(*steadyReceiver).inner, make(chan struct{})
	go func() {
		run.stop(t, true)
		slow.gone.Store(true)
		close(stopped)
	}()
	require.Eventually(t, func() bool {
		in.gate.mu.Lock()
		defer in.gate.mu.Unlock()
		return in.gate.open == nil
	}, waitLimit, tick)
	select {
	case <-stopped:
		t.Fatal("shut down with an authenticator at work")
	default:
	}
	close(slow.wait)
	<-stopped
	awaitHeld(t, in, 1) // before the consumer: the data is there
	run = beginWith(t, map[component.ID]component.Component{id("one"): &tokenAuth{token: "a"}}, tracesTo(authenticated(g, h, "one")))
	require.NoError(t, <-done)
	run.stop(t, false)
}

// What is not let in never gets to a consumer, and is not answered with a 401 that makes clients drop their data.
func TestARefusedTicketIsNoWayIn(t *testing.T) {
	in := &inner{gate: newGate()}
	in.gate.end()
	ctx, err := hook{in: in, auth: httpAuth}.Authenticate(t.Context(), nil)
	require.NoError(t, err)
	in.gate = newGate()
	in.gate.serve(&generation{consumers: consumers{traces: &sink{}}})
	requireRefused(t, in.ConsumeTraces(ctx, traces().Traces()))
}

type limiting struct {
	extension
	refuse atomic.Bool
}

func (l *limiting) MustRefuse() bool { return l.refuse.Load() }

type wrapping struct {
	extension
	name string
	used *atomic.Int64
}

func (w wrapping) GetHTTPHandler(context.Context) (extensionmiddleware.WrapHTTPHandlerFunc, error) {
	return func(_ context.Context, next http.Handler) (http.Handler, error) {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Middleware", w.name)
			next.ServeHTTP(rw, r)
		}), nil
	}, nil
}

func (w wrapping) GetGRPCServerOptions(context.Context) ([]grpc.ServerOption, error) {
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		w.used.Add(1)
		return next(ctx, req)
	})}, nil
}

func TestMiddlewaresAreThoseOfTheCurrentGeneration(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	conn, c := dial(t, g), client(t)
	s := tracesTo(`{protocols: {grpc: {endpoint: "` + g + `", middlewares: [{id: limiting}]}, http: {endpoint: "` + h + `", middlewares: [{id: wrapping}]}}}`)
	var in *inner
	for _, name := range []string{"a", "b"} {
		l := &limiting{}
		run := beginWith(t, map[component.ID]component.Component{id("limiting"): l, id("wrapping"): wrapping{name: name}}, s)
		if in == nil {
			in = run.receivers[0].(*steadyReceiver).inner
		}
		require.Same(t, in, run.receivers[0].(*steadyReceiver).inner)
		require.NoError(t, export(t.Context(), conn))
		l.refuse.Store(true)
		require.Equal(t, codes.ResourceExhausted, status.Code(export(t.Context(), conn)))
		response, err := post(t.Context(), c, "http://"+h+"/v1/traces")
		require.NoError(t, err)
		require.Equal(t, name, response.Header.Get("Middleware"))
		run.stop(t, true)
	}
	unpark(t)
}

// Server options cannot be taken back: such a middleware has the sockets opened anew.
func TestOtherGRPCMiddlewaresRestartTheInnerReceiver(t *testing.T) {
	g := freeAddress(t)
	s := tracesTo(`{protocols: {grpc: {endpoint: "` + g + `", middlewares: [{id: wrapping}]}}}`)
	var before *inner
	for range 2 {
		used := &atomic.Int64{}
		run := beginWith(t, map[component.ID]component.Component{id("wrapping"): wrapping{used: used}}, s)
		require.NotSame(t, before, run.receivers[0].(*steadyReceiver).inner)
		before = run.receivers[0].(*steadyReceiver).inner
		require.NoError(t, export(t.Context(), dial(t, g)))
		require.EqualValues(t, 1, used.Load())
		run.stop(t, true)
	}
	unpark(t)
}
