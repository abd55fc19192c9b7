package e2e

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// Signals that come before the Collector listens for them neither kill it nor get lost.
func TestSignalsWhileStarting(t *testing.T) {
	t.Parallel()
	c := harness.New(t, harness.Options{Configs: []string{"quickstart.yaml"}})
	launch := func() { // to the first line of the log: components are being built
		before := len(c.Log())
		c.Launch()
		harness.Await(t, time.Minute, "the first line of the log", func() (bool, any) { return len(c.Log()) > before, "" })
	}
	c.Start()
	c.Stop()
	t.Run("SIGTERM when ready", func(t *testing.T) {
		for range 20 {
			c.Start()
			c.Stop() // requires exit 0
		}
	})
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(sig.String()+" before", func(t *testing.T) {
			for range 10 {
				launch()
				c.Signal(sig)
				c.Stop()
			}
		})
	}
	t.Run("SIGHUP before", func(t *testing.T) {
		for range 10 {
			launch()
			c.Signal(syscall.SIGHUP)
			c.AwaitReady()
			c.Stop()
		}
	})
	require.Contains(t, c.Log(), "Shutdown complete.")
}
