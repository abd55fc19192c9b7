package swarm

import "sync/atomic"

// Counters are what happened to all agents together.
type Counters struct {
	// Sent and Received are messages, Heartbeats those of them that say nothing else.
	Sent, Received, Heartbeats atomic.Int64
	// FullState is how often an agent was told ReportFullState.
	FullState atomic.Int64
	// Offers are configurations offered, RepeatedOffers those of them that the agent had judged already; Applied and Failed what
	// became of the others.
	Offers, RepeatedOffers, Applied, Failed atomic.Int64
	// Plans were asked for, Restarts commanded, Renamed are new UIDs.
	Plans, Restarts, Renamed atomic.Int64
	// Refused are attempts to connect that were answered with "later", ConnectErrors those that failed otherwise.
	Refused, ConnectErrors atomic.Int64
	// Closed are Close frames of the server, Lost connections that ended without the agent's doing, Closed included.
	Closed, Lost atomic.Int64
	// BadRequests, Unavailable and Malformed are answers that should not be.
	BadRequests, Unavailable, Malformed, WriteErrors atomic.Int64
}
