package remoteconfig

import (
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
)

// offerMetrics is an offer of a destination for the Collector's own metrics.
func (w *machine) offerMetrics(hash, endpoint string) {
	w.process.m.OfferConnections([]byte(hash), &protobufs.ConnectionSettingsOffers{
		Hash: []byte(hash), OwnMetrics: &protobufs.TelemetryConnectionSettings{DestinationEndpoint: endpoint},
	})
}

func (w *machine) exportsMetrics() bool {
	w.process.mu.Lock()
	defer w.process.mu.Unlock()
	return w.process.service.conf.Get("service::telemetry::metrics::readers") != nil
}

const destination = "http://127.0.0.1:4318/v1/metrics"

func TestConnectionSettingsOnTrial(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offerMetrics("x", destination)
		w.run(5 * time.Second)
		require.True(t, w.exportsMetrics())
		require.Equal(t, []string{"APPLYING x"}, w.connections)
		w.offer("B", "") // it waits: one change at a time
		w.run(time.Second)
		require.Equal(t, "1+A", w.running())
		w.run(30 * time.Second)
		require.Equal(t, []string{"APPLYING x", "APPLIED x"}, w.connections)
		require.Equal(t, []string{"APPLYING A", "APPLIED A", "APPLYING B", "APPLIED B"}, w.said())
		require.Equal(t, "1+B", w.running())
		require.True(t, w.exportsMetrics())
		w.kill()
		w.run(time.Second)
		require.True(t, w.exportsMetrics())
	})
}

// An orderly end during the trial of settings: they start anew.
func TestOrderlyEndDuringATrialOfConnectionSettings(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offerMetrics("x", destination)
		w.run(5 * time.Second)
		require.NoError(t, w.stop())
		w.boot()
		require.True(t, w.exportsMetrics())
		require.Equal(t, "1+A", w.running())
		w.run(15 * time.Second)
		require.Equal(t, []string{"APPLYING x", "APPLIED x"}, w.connections)
	})
}

func TestCrashDuringATrialOfConnectionSettings(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offerMetrics("x", destination)
		w.run(5 * time.Second)
		w.kill()
		w.run(time.Second)
		require.False(t, w.exportsMetrics())
		require.Equal(t, []string{"APPLYING x", "FAILED x"}, w.connections)
		require.Equal(t, []string{"APPLYING A", "APPLIED A"}, w.said())
		w.offerMetrics("x", destination)
		w.run(15 * time.Second)
		require.False(t, w.exportsMetrics())
		require.Equal(t, []string{"APPLYING x", "FAILED x"}, w.connections)
	})
}

// Without remote configuration there may still be connection settings.
func TestConnectionSettingsBesideTheBaseFile(t *testing.T) {
	onMachine(t, func(w *machine) {
		w.settings = "    capabilities: {accepts_remote_config: false}"
		w.base("1", "")
		w.boot()
		w.offerMetrics("x", destination)
		w.offer("A", "")
		w.run(15 * time.Second)
		require.Equal(t, "1+", w.running())
		require.True(t, w.exportsMetrics())
		require.Equal(t, []string{"APPLYING x", "APPLIED x"}, w.connections)
		require.Empty(t, w.said())
	})
}
