// Package opampserver is the server side of OpAMP: WebSocket and plain HTTP on one path, over opamp-go's messages.
//
// It knows the protocol: answers, sequence numbers, instance UIDs, capabilities, limits, liveness. What to offer to whom, what
// is stored and who may do what is the Fleet's. DESIGN.md says which goroutine owns what, and how duplicates are told apart.
package opampserver
