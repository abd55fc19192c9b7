package remote

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// A component that reports something a hundred times a second does not hide that another one has failed for good.
func TestRestlessComponentHidesNoFailure(t *testing.T) {
	t.Parallel()
	e := start(t, options{binary: harness.Binary(t, "test/otelcol-unruly")})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.fleet.push("bad", `
processors:
  unruly/restless: {on: ready, do: flap}
  unruly/failed: {on: ready, do: permanent, after: 20ms}
service: {pipelines: {traces: {processors: [unruly/restless, unruly/failed, batch]}}}`)
	said := e.fleet.awaitAny("bad", "APPLIED", "FAILED")
	require.Equal(t, "FAILED", said.status)
	require.Contains(t, said.message, "health: processor:unruly/failed: ")
	e.requireWorks("attributes/test", "batch")
	e.collector.Stop()
}
