package steadyotlpreceiver

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/collie-otel/collie/internal/reload"
)

func requireClosed(t testing.TB, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err, "%s is still open", address)
	require.NoError(t, l.Close())
}

func tracesTo(config string) spec { return spec{config: config, next: consumers{traces: &sink{}}} }

// send is an export in the background.
func send(t *testing.T, address string) <-chan error {
	t.Helper()
	conn, done := dial(t, address), make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		done <- export(ctx, conn)
	}()
	return done
}

func TestEndClosesTheSockets(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	run := begin(t, tracesTo(both(g, h)))
	run.stop(t, false)
	requireClosed(t, g)
	requireClosed(t, h)
	run.stop(t, false) // twice does no harm
}

func TestEndWaitsForRequestsInFlight(t *testing.T) {
	g := freeAddress(t)
	inside, slow := make(chan struct{}), &sink{takes: 200 * time.Millisecond}
	slow.seen = func(context.Context) { close(inside) }
	run := begin(t, spec{config: both(g, freeAddress(t)), next: consumers{traces: slow}})
	done := send(t, g)
	<-inside
	run.stop(t, false)
	require.EqualValues(t, 1, slow.spans.Load())
	require.NoError(t, <-done)
}

func TestShutdownWithoutStart(t *testing.T) {
	run := create(t, newHost(nil), tracesTo(both(freeAddress(t), freeAddress(t))))
	run.stop(t, true)
	run.stop(t, false)
	require.Error(t, run.start(t))
	require.Empty(t, parkedNow())
}

func TestConcurrentStartAndShutdown(t *testing.T) {
	for range 20 {
		g, h := freeAddress(t), freeAddress(t)
		run := create(t, newHost(nil), tracesTo(both(g, h)))
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { _ = run.receivers[0].Start(context.Background(), run.host) })
			all.Go(func() { _ = run.receivers[0].Shutdown(context.Background()) })
		}
		all.Wait()
		run.stop(t, false)
		requireClosed(t, g)
		requireClosed(t, h)
	}
}

func TestFailedStartFreesItsPorts(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	for name, config := range map[string]string{
		"address taken":  both(g, taken.Addr().String()),
		"no certificate": `protocols: {grpc: {endpoint: "` + g + `"}, http: {endpoint: "` + h + `", tls: {cert_file: /nowhere, key_file: /nowhere}}}`,
		"no extension":   `protocols: {grpc: {endpoint: "` + g + `"}, http: {endpoint: "` + freeAddress(t) + `", middlewares: [{id: nothing}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			run := create(t, newHost(nil), tracesTo(config))
			require.Error(t, run.start(t))
			run.stop(t, true)
			requireClosed(t, g)
			requireClosed(t, h)
			require.Empty(t, parkedNow())
		})
	}
}

func TestTwoReceiversOnOneAddressIsAnError(t *testing.T) {
	g := freeAddress(t)
	other := tracesTo(both(g, freeAddress(t)))
	other.id = "2"
	run := create(t, newHost(nil), tracesTo(both(g, freeAddress(t))), other)
	require.ErrorContains(t, run.start(t), "address already in use")
	run.stop(t, false)
}

func TestTwoReceiversReloadTogether(t *testing.T) {
	a, b := freeAddress(t), freeAddress(t)
	one, two := tracesTo(both(a, freeAddress(t))), tracesTo(both(b, freeAddress(t)))
	two.id = "2"
	begin(t, one, two).stop(t, true)
	require.Len(t, parkedNow(), 2)
	doneA, doneB := send(t, a), send(t, b)
	for _, in := range parkedNow() {
		awaitHeld(t, in, 1)
	}
	run := begin(t, one, two)
	require.Empty(t, parkedNow())
	require.NoError(t, <-doneA)
	require.NoError(t, <-doneB)
	run.stop(t, false)
}

// The generation after the next gets the requests if the next one does not come up, however it failed.
func TestRequestsOutliveFailedStarts(t *testing.T) {
	g := freeAddress(t)
	good := tracesTo(both(g, freeAddress(t)))
	begin(t, good).stop(t, true)
	in := parkedNow()[0]
	done := send(t, g)
	awaitHeld(t, in, 1)

	neverStarted := create(t, newHost(nil), good)
	neverStarted.stop(t, true)
	noExtension := good
	noExtension.config = `{protocols: {grpc: {endpoint: "` + g + `", auth: {authenticator: nothing}}}}`
	require.Equal(t, []*inner{in}, parkedNow())

	broken := create(t, newHost(nil), good, spec{id: "2", config: both("127.0.0.1:99999", freeAddress(t)), next: consumers{traces: &sink{}}})
	require.Error(t, broken.start(t)) // after the first one has served
	require.NoError(t, <-done)
	broken.stop(t, true)
	require.Equal(t, []*inner{in}, parkedNow())

	done = send(t, g)
	awaitHeld(t, in, 1)
	run := begin(t, good)
	require.NoError(t, <-done)
	run.stop(t, false)
}

func TestWhatNobodyWantsIsClosedBeforeAnythingIsOpened(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	begin(t, tracesTo(both(g, h))).stop(t, true)
	done := send(t, g)
	awaitHeld(t, parkedNow()[0], 1)
	renamed := tracesTo(both(g, h))
	renamed.id = "renamed"
	run := begin(t, renamed)
	require.Empty(t, parkedNow())
	requireRefused(t, <-done) // it comes back
	require.NoError(t, <-send(t, g))

	run.stop(t, true)
	changed := tracesTo(`{protocols: {grpc: {endpoint: "` + g + `", max_recv_msg_size_mib: 1}}}`)
	changed.id = "renamed"
	run = begin(t, changed)
	require.NoError(t, <-send(t, g))
	requireClosed(t, h)
	run.stop(t, false)
	requireClosed(t, g)
}

// Another type of receiver may want the address, and may be started before any of ours: an extension tells.
func TestWhatNobodyWantsIsClosedWhenExtensionsStart(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	kept, removed := tracesTo(both(freeAddress(t), freeAddress(t))), tracesTo(both(g, h))
	removed.id = "removed"
	begin(t, kept, removed).stop(t, true)
	next := create(t, newHost(nil), kept)
	reload.Created(next.receivers[0].(*steadyReceiver).set.Resource, nil)
	requireClosed(t, g)
	requireClosed(t, h)
	require.Len(t, parkedNow(), 1)
	reload.Created(pcommon.NewResource(), nil) // a generation without any
	require.Empty(t, parkedNow())
}

func TestWithoutAReceiverTheSocketsAreClosedInTime(t *testing.T) {
	steady.parkFor = 10 * time.Millisecond
	defer func() { steady.parkFor = parkFor }()
	g := freeAddress(t)
	begin(t, tracesTo(both(g, freeAddress(t)))).stop(t, true)
	require.Eventually(t, func() bool {
		l, err := net.Listen("tcp", g)
		return err == nil && l.Close() == nil
	}, 5*time.Second, 5*time.Millisecond)
	require.Empty(t, parkedNow())
}

// Validation creates receivers that are neither started nor shut down.
func TestCreatedReceiversDoNoHarmAndAreForgotten(t *testing.T) {
	g := freeAddress(t)
	s := tracesTo(both(g, freeAddress(t)))
	run := begin(t, s)
	for range 100 {
		create(t, newHost(nil), s)
	}
	require.NoError(t, <-send(t, g))
	require.Eventually(t, func() bool {
		runtime.GC()
		steady.mu.Lock()
		defer steady.mu.Unlock()
		return len(steady.created) == 0
	}, 5*time.Second, 10*time.Millisecond)

	run.stop(t, true)
	create(t, newHost(nil), spec{id: "2", config: both(freeAddress(t), freeAddress(t)), next: s.next})
	run = begin(t, s) // what validation wanted has no say
	run.stop(t, false)
	requireClosed(t, g)
}

func TestSocketsThatFailedAreNotKept(t *testing.T) {
	run := begin(t, tracesTo(both(freeAddress(t), freeAddress(t))))
	in := run.receivers[0].(*steadyReceiver).inner
	in.host.Report(componentstatus.NewFatalErrorEvent(net.ErrClosed))
	require.Equal(t, componentstatus.StatusFatalError, lastEvent(t, run.host).Status())
	run.stop(t, true)
	require.Empty(t, parkedNow())
}

func TestEventsGoToTheCurrentGeneration(t *testing.T) {
	s := tracesTo(both(freeAddress(t), freeAddress(t)))
	first := begin(t, s)
	in := first.receivers[0].(*steadyReceiver).inner
	first.stop(t, true)
	for len(first.host.events) > 0 {
		<-first.host.events
	}
	in.host.Report(componentstatus.NewRecoverableErrorEvent(net.ErrClosed)) // nobody is there to hear it
	require.Empty(t, first.host.events)
	second := begin(t, s)
	in.host.Report(componentstatus.NewRecoverableErrorEvent(net.ErrClosed))
	require.Equal(t, componentstatus.StatusRecoverableError, lastEvent(t, second.host).Status())
	require.Empty(t, first.host.events)
	second.stop(t, false)
}

func lastEvent(t *testing.T, h *testHost) (last *componentstatus.Event) {
	t.Helper()
	for len(h.events) > 0 {
		last = <-h.events
	}
	require.NotNil(t, last)
	return last
}

func TestClientsThatGoAwayAreNotHeld(t *testing.T) {
	g := freeAddress(t)
	begin(t, tracesTo(both(g, freeAddress(t)))).stop(t, true)
	in := parkedNow()[0]
	conn := dial(t, g)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- export(ctx, conn) }()
	awaitHeld(t, in, 1)
	cancel()
	require.Equal(t, codes.Canceled, status.Code(<-done))
	awaitHeld(t, in, 0)
	unpark(t)
}

func TestARequestIsHeldForALimitedTime(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	begin(t, tracesTo(both(g, h))).stop(t, true)
	in := parkedNow()[0]
	in.gate.holdFor = 10 * time.Millisecond
	requireRefused(t, <-send(t, g))
	response, err := post(t.Context(), client(t), "http://"+h+"/v1/traces")
	require.ErrorIs(t, err, errStatus)
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "1", response.Header.Get("Retry-After"))
	unpark(t)
}

func TestTheEndIsTheEndUnlessMoreIsExpected(t *testing.T) {
	run := begin(t, tracesTo(both(freeAddress(t), freeAddress(t))))
	reload.Expect(false)
	require.NoError(t, run.receivers[0].Shutdown(t.Context()))
	require.Empty(t, parkedNow())
}
