// Package opampextension is the OpAMP agent as a Collector extension, type `opamp`.
//
// It knows the Collector: configuration, health of the components, effective configuration, what the binary contains, how to
// reload. The protocol and the connection, which outlive a run of the extension, are internal/agent's.
package opampextension
