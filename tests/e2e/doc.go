// Package e2e holds one file per promise, each shown on real otelcol-collie processes with the shipped configurations
// and real OTLP traffic. The programs are those of `make build`; the package itself holds no code.
package e2e
