package remote

import (
	"fmt"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// offerConnections sends settings for own telemetry and other connections.
func (f *fleet) offerConnections(hash string, offers *protobufs.ConnectionSettingsOffers) {
	f.t.Helper()
	offers.Hash = []byte(hash)
	f.send(&protobufs.ServerToAgent{ConnectionSettings: offers})
}

// awaitConnections waits for a status of connection settings, and returns its message.
func (f *fleet) awaitConnections(hash string, status protobufs.ConnectionSettingsStatuses) string {
	f.t.Helper()
	message := ""
	harness.Await(f.t, 30*time.Second, status.String()+" of "+hash, func() (bool, any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		var seen []string
		for _, m := range f.messages {
			s := m.ConnectionSettingsStatus
			if s == nil {
				continue
			}
			if string(s.LastConnectionSettingsHash) == hash && s.Status == status {
				message = s.ErrorMessage
				return true, nil
			}
			seen = append(seen, fmt.Sprintf("%s %s %s", s.LastConnectionSettingsHash, s.Status, s.ErrorMessage))
		}
		return false, seen
	})
	return message
}

const (
	applied = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED
	failed  = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED
)

// The server says where own telemetry goes: it arrives there, the local reader stays, and a repeated offer changes nothing.
func TestOwnTelemetry(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	own := harness.StartSink(t)
	e.fleet.push("attribute", addAttribute)
	e.fleet.await(0, "attribute", "APPLIED")
	offer := func() *protobufs.ConnectionSettingsOffers {
		return &protobufs.ConnectionSettingsOffers{OwnMetrics: &protobufs.TelemetryConnectionSettings{
			DestinationEndpoint: "http://" + own.HTTPEndpoint() + "/v1/metrics",
			Headers:             &protobufs.Headers{Headers: []*protobufs.Header{{Key: "X-Token", Value: `a$b"c\d${env:HOME}`}}},
		}}
	}
	e.fleet.offerConnections("own", offer())
	e.fleet.awaitConnections("own", applied)
	harness.Await(t, 40*time.Second, "own metrics", func() (bool, any) { s := own.Summary(); return s.DataPoints > 0, s })
	e.awaitProcessors("attributes/test", "batch") // the remote configuration stays

	reloads := e.reloads()
	e.fleet.offerConnections("own", offer())
	e.fleet.offerConnections("same content", offer())
	e.fleet.awaitConnections("same content", applied)
	require.Equal(t, reloads, e.reloads())

	e.fleet.offerConnections("bad", &protobufs.ConnectionSettingsOffers{OwnLogs: &protobufs.TelemetryConnectionSettings{
		DestinationEndpoint: "http://backend.example/v1/logs",
		Tls:                 &protobufs.TLSConnectionSettings{InsecureSkipVerify: true},
	}})
	require.Contains(t, e.fleet.awaitConnections("bad", failed), "own logs")
	require.Equal(t, reloads, e.reloads())

	// The next process has it all, server or not.
	e.collector.Stop()
	own.Reset()
	e.collector.Start()
	e.awaitProcessors("attributes/test", "batch")
	harness.Await(t, 40*time.Second, "own metrics again", func() (bool, any) { s := own.Summary(); return s.DataPoints > 0, s })
	e.collector.Stop()
}

// Settings named after an exporter move it; a destination that makes it unhealthy would be taken back like any configuration.
func TestOtherConnections(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	moved := harness.StartSink(t)
	e.fleet.offerConnections("move", &protobufs.ConnectionSettingsOffers{OtherConnections: map[string]*protobufs.OtherConnectionSettings{
		"otlp/backend": {DestinationEndpoint: moved.GRPCEndpoint()}, // the exporter's older name
	}})
	e.fleet.awaitConnections("move", applied)
	sum := e.run(traffic.LoadConfig{Rate: 200, Duration: time.Second})
	harness.Await(t, 20*time.Second, "spans at the new place", func() (bool, any) {
		missing := traffic.Missing(sum.AcknowledgedSet(), moved.Received(sum.Run)).GetCardinality()
		return missing == 0, missing
	})
	require.Empty(t, e.sink.Summary().Runs[sum.Run].Spans)

	e.fleet.offerConnections("unknown", &protobufs.ConnectionSettingsOffers{OtherConnections: map[string]*protobufs.OtherConnectionSettings{
		"no_such/exporter": {DestinationEndpoint: "127.0.0.1:1"},
	}})
	require.Contains(t, e.fleet.awaitConnections("unknown", applied), "no_such/exporter")

	e.fleet.offerConnections("weak", &protobufs.ConnectionSettingsOffers{OtherConnections: map[string]*protobufs.OtherConnectionSettings{
		"otlp_grpc/backend": {Tls: &protobufs.TLSConnectionSettings{InsecureSkipVerify: true}},
	}})
	require.Contains(t, e.fleet.awaitConnections("weak", failed), "insecure_skip_verify")
	e.collector.Stop()
}
