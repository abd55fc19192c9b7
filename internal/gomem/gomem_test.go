package gomem

import (
	"math"
	"os"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// These tests change the process's own limits, so they do not run in parallel.

func restoreLimits(t *testing.T) {
	t.Helper()
	gc, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() {
		debug.SetGCPercent(gc)
		debug.SetMemoryLimit(limit)
	})
}

func ThroughputNow() int {
	now := debug.SetGCPercent(100)
	debug.SetGCPercent(now)
	return now
}

func TestApplySetsBoth(t *testing.T) {
	restoreLimits(t)
	require.NoError(t, Apply(func(string) (string, bool) { return "", false }, Throughput))
	require.Equal(t, Throughput, ThroughputNow())
	require.Less(t, debug.SetMemoryLimit(-1), int64(math.MaxInt64), "the limit comes from the cgroup or the host")
}

func TestApplyLeavesTheUsersValues(t *testing.T) {
	restoreLimits(t)
	t.Setenv("GOGC", "50")
	t.Setenv("GOMEMLIMIT", "123MiB")
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(123 << 20)
	require.NoError(t, Apply(os.LookupEnv, Throughput))
	require.Equal(t, 50, ThroughputNow())
	require.Equal(t, int64(123<<20), debug.SetMemoryLimit(-1))
}

func TestApplyReportsABadRatio(t *testing.T) {
	restoreLimits(t)
	t.Setenv("AUTOMEMLIMIT", "lots")
	require.ErrorContains(t, Apply(os.LookupEnv, Throughput), "AUTOMEMLIMIT")
}
