// Package opampextension is the OpAMP agent as a Collector extension, type `opamp`.
//
// This first version connects the Collector to an OpAMP server over WebSocket or plain HTTP,
// and reports its identity and that it runs. It never changes the running service.
// Configuration, validation and defaults are here; the protocol is opamp-go's client.
package opampextension
