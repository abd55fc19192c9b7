// Package reload tells a component whether it is shut down for a reload or for good. The calls that the Collector makes are
// the same in both cases.
package reload

import (
	"runtime"
	"strings"
	"sync/atomic"
)

// expected is process-wide: whoever runs the Collector again in the same process knows it before its components do.
var expected atomic.Bool

// Expect says whether the process will run the Collector again after this run.
func Expect(again bool) { expected.Store(again) }

// InProgress says whether the components that are shut down by the caller's caller will be built anew in this process: in a
// reload of the configuration, or because another run is expected.
func InProgress() bool { return expected.Load() || calledBy("otelcol.(*Collector).reloadConfiguration") }

func calledBy(function string) bool {
	callers := make([]uintptr, 64)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, function) {
			return true
		}
		if !more {
			return false
		}
	}
}
