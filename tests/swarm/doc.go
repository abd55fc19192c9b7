// Package swarm plays many OpAMP agents in one process, as cheaply as it can, so that a server of 10,000 agents can be tried on
// one small machine. The agents speak the protocol over WebSocket, with stable UUIDv7s and sequence numbers: a full report at first,
// heartbeats of nothing but uid, sequence and capabilities, whatever they are asked for, and configurations, plans, restarts and
// new UIDs taken as a real one would. They do not compress, and do not come back by themselves: Drop and Reconnect say when.
//
// An agent costs one goroutine and about 10 kB while it is connected, stacks included and without what the kernel holds for its socket,
// and one file descriptor; all heartbeats come from one more goroutine. TestCost prints the figure:
//
//	go test -run Cost -v ./tests/swarm
package swarm
