// Package agent is the OpAMP agent of a process: one session with a server that outlives reloads of the Collector's
// configuration. It owns the connection, the agent's identity and what has been reported to the server; what there is to
// report comes from its owner (extension/opampextension), and it never calls into the pipelines.
//
// DESIGN.md beside this file shows the goroutines, what is sent when, and what a misbehaving server can do.
package agent
