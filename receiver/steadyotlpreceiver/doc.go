// Package steadyotlpreceiver is the OTLP receiver of the Collector with its sockets kept across reloads: requests that come
// while one configuration gives way to the next wait, and none is refused. It registers the type `otlp` and takes exactly
// the configuration of go.opentelemetry.io/collector/receiver/otlpreceiver, which does all of the work: this package
// decides when it is started, stopped and held, and to which pipelines it is connected. See DESIGN.md.
package steadyotlpreceiver
