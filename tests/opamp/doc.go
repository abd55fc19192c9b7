// Package opamp drives the built otelcol-collie with a fake OpAMP server, over both transports, through what the
// protocol asks of an agent and through what a misbehaving server can do to it. The package itself holds no code.
package opamp
