package harness

import (
	"testing"
	"time"
)

// Await polls until done returns true, and fails with the last state when limit runs out.
// The state is what a reader needs to see why it never became true.
func Await(t testing.TB, limit time.Duration, what string, done func() (ok bool, state any)) {
	t.Helper()
	var state any
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		var ok bool
		if ok, state = done(); ok {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s: not within %v; last state: %+v", what, limit, state)
}
