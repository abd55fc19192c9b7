// Package gomem sets the Go runtime's memory limit and garbage collection target for our programs,
// where the user has not. It leaves the Collector's own memory_limiter to the configuration.
package gomem

import (
	"fmt"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// limitRatio is the share of the cgroup's (else the host's) memory the Go heap may fill before
	// the collector of garbage works harder; the rest is for stacks, cgo and the page cache.
	limitRatio = 0.8

	// Throughput is a GOGC for a Collector: it costs about 30 MB of heap and saves about 14 % of CPU per span against Go's
	// default of 100. `make bench` shows both.
	Throughput = 200
	// Thrift is a GOGC for a control plane, which holds much and allocates little: a fleet's state half over, not twice.
	Thrift = 50
)

// Apply sets GOMEMLIMIT from the cgroup, else from the host's memory, and GOGC as given.
// A variable that is present in the environment is left as Go read it, and AUTOMEMLIMIT
// (a ratio, or "off") is honoured as automemlimit documents it.
// It fails when the limit cannot be read; the process runs as well without it.
func Apply(lookupEnv func(string) (string, bool), gcPercent int) error {
	if _, set := lookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
	}
	_, err := memlimit.Set(
		memlimit.WithRatio(limitRatio),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	)
	if err != nil {
		return fmt.Errorf("set GOMEMLIMIT (set it yourself to silence this): %w", err)
	}
	return nil
}
