// Package harness runs real otelcol-collie processes for tests: start, await ready, stop, kill, restart,
// on free ports of a loopback address, with an explicit environment, and nothing left behind.
// Traffic comes from internal/traffic; what a test proves stays in the test.
package harness
