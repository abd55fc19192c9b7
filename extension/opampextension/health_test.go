package opampextension

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/pipeline"
)

var (
	traces   = pipeline.NewID(pipeline.SignalTraces)
	logs     = pipeline.NewIDWithName(pipeline.SignalLogs, "audit")
	receives = componentstatus.NewInstanceID(component.MustNewID("otlp"), component.KindReceiver, traces, logs)
	batches  = componentstatus.NewInstanceID(component.MustNewIDWithName("batch", "a"), component.KindProcessor, traces)
	exports  = componentstatus.NewInstanceID(component.MustNewID("otlp"), component.KindExporter, traces)
	connects = componentstatus.NewInstanceID(component.MustNewID("count"), component.KindConnector, traces, logs)
	extends  = componentstatus.NewInstanceID(component.MustNewID("x"), component.KindExtension)
	errTest  = errors.New("no route")
)

func event(status componentstatus.Status) *componentstatus.Event {
	return componentstatus.NewEvent(status)
}

func built(h *healthTree) *protobufs.ComponentHealth {
	report, _ := h.build(time.Now())
	return report
}

func names(h *protobufs.ComponentHealth) []string {
	return slices.Sorted(maps.Keys(h.ComponentHealthMap))
}

func TestHealthShapeAndTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		h := newHealthTree(time.Minute, begin)
		report := built(h)
		require.False(t, report.Healthy)
		require.Equal(t, "StatusStarting", report.Status)
		require.Equal(t, nanos(begin), report.StartTimeUnixNano)
		require.Empty(t, report.ComponentHealthMap)

		time.Sleep(time.Second) // of the bubble's clock
		for _, id := range []*componentstatus.InstanceID{receives, batches, exports, connects, extends} {
			h.update(id, event(componentstatus.StatusStarting))
		}
		starting := time.Now()
		time.Sleep(time.Second)
		for _, id := range []*componentstatus.InstanceID{receives, batches, exports, connects, extends} {
			h.update(id, event(componentstatus.StatusOK))
		}
		h.setReady(true)
		report = built(h)
		require.Equal(t, []string{"extensions", "pipeline:logs/audit", "pipeline:traces"}, names(report))
		require.Equal(t, []string{"extension:x"}, names(report.ComponentHealthMap["extensions"]))
		require.Equal(t, []string{"connector:count", "receiver:otlp"}, names(report.ComponentHealthMap["pipeline:logs/audit"]))
		group := report.ComponentHealthMap["pipeline:traces"]
		require.Equal(t, []string{"connector:count", "exporter:otlp", "processor:batch/a", "receiver:otlp"}, names(group))
		for _, one := range []*protobufs.ComponentHealth{report, group, group.ComponentHealthMap["receiver:otlp"]} {
			require.True(t, one.Healthy)
			require.Equal(t, "StatusOK", one.Status)
			require.Empty(t, one.LastError)
			require.Equal(t, nanos(time.Now()), one.StatusTimeUnixNano)
		}
		require.Equal(t, nanos(begin), report.StartTimeUnixNano)
		require.Equal(t, nanos(starting), group.StartTimeUnixNano)
		require.Equal(t, nanos(starting), group.ComponentHealthMap["receiver:otlp"].StartTimeUnixNano)

		time.Sleep(time.Second)
		h.setReady(false)
		h.update(batches, event(componentstatus.StatusStopping))
		require.Equal(t, nanos(starting), built(h).ComponentHealthMap["pipeline:traces"].ComponentHealthMap["processor:batch/a"].StartTimeUnixNano)
		h.update(batches, event(componentstatus.StatusStopped))
		for range 20 { // maps are walked in another order each time
			report = built(h)
			require.False(t, report.Healthy)
			group = report.ComponentHealthMap["pipeline:traces"]
			require.Equal(t, nanos(starting), group.StartTimeUnixNano, "of those that run")
			stopped := group.ComponentHealthMap["processor:batch/a"]
			require.False(t, stopped.Healthy)
			require.Equal(t, "StatusStopped", stopped.Status)
			require.Zero(t, stopped.StartTimeUnixNano)
			require.Equal(t, nanos(time.Now()), stopped.StatusTimeUnixNano)
		}
	})
}

func TestHealthErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		grace       time.Duration
		run         func(h *healthTree)
		wantHealthy bool
		wantStatus  string
		wantError   string
		wantAgain   time.Duration
	}{
		{
			name: "recoverable within the grace period", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
				time.Sleep(20 * time.Second)
			},
			wantHealthy: true, wantStatus: "StatusRecoverableError", wantError: "pipeline:traces/exporter:otlp: no route", wantAgain: 40 * time.Second,
		},
		{
			name: "recoverable at the end of the grace period", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
				time.Sleep(time.Minute)
			},
			wantStatus: "StatusRecoverableError", wantError: "pipeline:traces/exporter:otlp: no route",
		},
		{
			name:       "no grace period",
			run:        func(h *healthTree) { h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest)) },
			wantStatus: "StatusRecoverableError", wantError: "pipeline:traces/exporter:otlp: no route",
		},
		{
			name: "the same error again does not begin anew", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
				time.Sleep(45 * time.Second)
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errors.New("reset")))
			},
			wantHealthy: true, wantStatus: "StatusRecoverableError", wantError: "pipeline:traces/exporter:otlp: reset", wantAgain: 15 * time.Second,
		},
		{
			name: "recovery begins anew", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
				time.Sleep(45 * time.Second)
				h.update(exports, event(componentstatus.StatusOK))
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
			},
			wantHealthy: true, wantStatus: "StatusRecoverableError", wantError: "pipeline:traces/exporter:otlp: no route", wantAgain: time.Minute,
		},
		{
			name: "recovered", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
				time.Sleep(2 * time.Minute)
				h.update(exports, event(componentstatus.StatusOK))
			},
			wantHealthy: true, wantStatus: "StatusOK",
		},
		{
			name: "the earliest end counts", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(exports, componentstatus.NewRecoverableErrorEvent(errTest))
				time.Sleep(10 * time.Second)
				h.update(extends, componentstatus.NewRecoverableErrorEvent(errTest))
			},
			wantHealthy: true, wantStatus: "StatusRecoverableError", wantError: "extensions/extension:x: no route", wantAgain: 50 * time.Second,
		},
		{
			name: "permanent at once, and worse than recoverable", grace: time.Minute,
			run: func(h *healthTree) {
				h.update(receives, componentstatus.NewPermanentErrorEvent(errTest))
				h.update(extends, componentstatus.NewRecoverableErrorEvent(errTest))
			},
			wantStatus: "StatusPermanentError", wantError: "pipeline:logs/audit/receiver:otlp: no route", wantAgain: time.Minute,
		},
		{
			name: "fatal without an error", grace: time.Minute,
			run:        func(h *healthTree) { h.update(extends, event(componentstatus.StatusFatalError)) },
			wantStatus: "StatusFatalError", wantError: "extensions/extension:x",
		},
		{
			name: "note", run: func(h *healthTree) { h.setNote("restart refused") },
			wantHealthy: true, wantStatus: "StatusOK", wantError: "restart refused",
		},
		{
			name: "note taken away", run: func(h *healthTree) { h.setNote("restart refused"); h.setNote("") },
			wantHealthy: true, wantStatus: "StatusOK",
		},
		{
			name: "an error is told before a note", run: func(h *healthTree) {
				h.setNote("restart refused")
				h.update(extends, componentstatus.NewPermanentErrorEvent(errTest))
			},
			wantStatus: "StatusPermanentError", wantError: "extensions/extension:x: no route",
		},
		{
			name: "not ready again", run: func(h *healthTree) { h.setReady(false) },
			wantStatus: "StatusStarting",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHealthTree(tt.grace, time.Now())
				h.setReady(true)
				tt.run(h)
				for range 10 { // maps are walked in another order each time
					report, again := h.build(time.Now())
					require.Equal(t, tt.wantHealthy, report.Healthy)
					require.Equal(t, tt.wantStatus, report.Status)
					require.Equal(t, tt.wantError, report.LastError)
					require.Equal(t, tt.wantAgain, again)
				}
			})
		})
	}
}

// A Protobuf string that is not UTF-8 would keep the whole message from being sent.
func TestHealthErrorsAreUTF8(t *testing.T) {
	t.Parallel()
	h := newHealthTree(0, time.Now())
	h.update(extends, componentstatus.NewPermanentErrorEvent(errors.New("bad \xff")))
	report := built(h)
	require.True(t, utf8.ValidString(report.LastError))
	require.True(t, utf8.ValidString(report.ComponentHealthMap["extensions"].ComponentHealthMap["extension:x"].LastError))
	h = newHealthTree(0, time.Now())
	h.setNote("bad \xff")
	require.Equal(t, "bad \uFFFD", built(h).LastError)
}

// memory_limiter says that it is well at each of its checks, once a second.
func TestHealthSaidAgainIsNoChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHealthTree(time.Minute, time.Now())
		h.update(batches, event(componentstatus.StatusOK))
		<-h.changed
		first := built(h)
		time.Sleep(time.Second)
		h.update(batches, event(componentstatus.StatusOK))
		require.Empty(t, h.changed)
		require.Equal(t, first.String(), built(h).String(), "the time is that of the last change")

		h.update(batches, componentstatus.NewRecoverableErrorEvent(errTest))
		require.Len(t, h.changed, 1)
		<-h.changed
		h.update(batches, componentstatus.NewRecoverableErrorEvent(errTest))
		require.Empty(t, h.changed)
		h.update(batches, componentstatus.NewRecoverableErrorEvent(errors.New("another one")))
		require.Len(t, h.changed, 1)
	})
}

// The Collector calls update under a lock, also while nobody takes what has changed.
func TestHealthUpdateNeverBlocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a goroutine that blocks for ever fails the bubble
		h := newHealthTree(time.Minute, time.Now())
		var writers sync.WaitGroup
		for _, id := range []*componentstatus.InstanceID{receives, batches, exports, extends} {
			writers.Go(func() {
				for range 100 {
					h.update(id, event(componentstatus.StatusOK))
					h.setReady(true)
					h.setNote("x")
					built(h)
				}
			})
		}
		writers.Wait()
		require.Len(t, h.changed, 1, "many changes are one wake-up")
		<-h.changed
		h.update(extends, event(componentstatus.StatusStopping))
		require.Len(t, h.changed, 1)
	})
}

// What hangs in its start is what has begun to start and gone no further.
func TestStartingComponents(t *testing.T) {
	t.Parallel()
	h := newHealthTree(time.Minute, time.Now())
	require.Empty(t, h.starting())
	for _, id := range []*componentstatus.InstanceID{exports, batches, receives, extends} {
		h.update(id, event(componentstatus.StatusStarting))
	}
	h.update(exports, event(componentstatus.StatusOK))
	h.update(extends, event(componentstatus.StatusStopped))
	require.Equal(t, []string{"processor:batch/a", "receiver:otlp"}, h.starting(), "one that is in two pipelines is named once")
}
