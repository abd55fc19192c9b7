// Package reload tells a component that is being shut down whether its process goes on. The Collector stops components in
// a reload with the same calls as at its end, so what lives longer than one configuration (a connection, a socket) has to
// ask here. What a component does with the answer is its own matter.
package reload

import (
	"runtime"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// expected is the answer for everything that is no reload of the Collector. It is one per process, as what it is about.
var expected atomic.Bool

// Expect is for a main that runs the Collector again when it has ended: while it is set, the end of a run (a failed start,
// a fatal error) counts as a reload. It must be taken back before the run that is meant to be the last one is stopped.
func Expect(again bool) { expected.Store(again) }

// GoesOn says whether a component that is shut down by its caller is followed by another one in this process.
func GoesOn() bool { return expected.Load() || inReload() }

// inReload looks for the Collector's reload among the callers: nothing else tells.
func inReload() bool {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "otelcol.(*Collector).reloadConfiguration") {
			return true
		}
		if !more {
			return false
		}
	}
}

// Listener is told which generation has been created, by the resource of its telemetry, and which extensions it has.
type Listener = func(generation pcommon.Resource, extensions map[component.ID]component.Component)

var onCreated atomic.Pointer[Listener]

// OnCreated has listen called by Created. There is one listener, which may be set again.
func OnCreated(listen Listener) { onCreated.Store(&listen) }

// Created is for an extension's Start: all components of its generation have been created by then, and no pipeline has been
// started. That is the moment to close what the generation before has left and this one does not want; without such an
// extension nothing tells it.
func Created(generation pcommon.Resource, extensions map[component.ID]component.Component) {
	if listen := onCreated.Load(); listen != nil {
		(*listen)(generation, extensions)
	}
}
