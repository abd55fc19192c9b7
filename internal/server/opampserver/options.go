package opampserver

import (
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// Path is where agents look for the server by default (spec "Communication Model").
const Path = "/v1/opamp"

// DefaultMaxMessage bounds a message in bytes after decompression (spec "Message Size Limits").
const DefaultMaxMessage = 64 << 20

// DefaultCapabilities are those of a server that takes every report and offers configurations.
const DefaultCapabilities = uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus |
	protobufs.ServerCapabilities_ServerCapabilities_OffersRemoteConfig |
	protobufs.ServerCapabilities_ServerCapabilities_AcceptsEffectiveConfig)

// Options bound the server. The zero value of a field means its default.
type Options struct {
	// Capabilities are the server's bits (spec "ServerCapabilities"); AcceptsStatus is always set. Default: DefaultCapabilities.
	Capabilities uint64
	// CustomCapabilities are the server's, announced with the bits.
	CustomCapabilities []string

	// MaxMessage bounds a message of either side, in bytes without compression. Default: DefaultMaxMessage.
	MaxMessage int64
	// MaxInFlight bounds all messages that are being received, in bytes. Default: 8 times MaxMessage.
	MaxInFlight int64
	// MaxConnections bounds WebSocket connections. Default: 100,000.
	MaxConnections int
	// MaxAgents bounds the agents remembered, offline ones included. Default: 200,000.
	MaxAgents int
	// MaxAgentsPerConnection bounds what a gateway brings over one connection. Default: 5,000.
	MaxAgentsPerConnection int
	// MaxHandshakes bounds upgrades under way, authentication included. Default: 256.
	MaxHandshakes int
	// MaxWaiting bounds upgrades that wait for their turn, and HandshakeWait how long they do. Default: 8,192 and 5 s.
	MaxWaiting    int
	HandshakeWait time.Duration
	// MaxRequests bounds plain HTTP requests under way. Default: 1,024.
	MaxRequests int
	// AcceptRate and AcceptBurst bound new WebSocket connections per second. Default: 1,000 and 5,000.
	AcceptRate, AcceptBurst int

	// Heartbeat is how often agents are expected that were not offered an interval. Default: 30 s, as in the spec.
	Heartbeat time.Duration
	// PingTimeout is how long a silent connection may take to answer a ping. Default: 10 s.
	PingTimeout time.Duration
	// FirstMessage is how long a new connection may say nothing valid. Default: 30 s.
	FirstMessage time.Duration
	// MessageTimeout is how long one message may take to arrive. Default: 60 s.
	MessageTimeout time.Duration
	// WriteTimeout is how long one message may take to leave; after it the connection is closed. Default: 10 s.
	WriteTimeout time.Duration
	// RetryAfter is what refused agents are told to wait, up to twice of it. Default: 30 s (spec "Throttling").
	RetryAfter time.Duration
	// Drain is the window over which Shutdown spreads its Close frames. Default: 5 s.
	Drain time.Duration
	// Retain is how long the sequence number and state of an agent that is gone are remembered. Default: 24 h.
	Retain time.Duration
}

func or[T int | int64 | uint64 | time.Duration](value *T, standard T) {
	if *value <= 0 {
		*value = standard
	}
}

func (o Options) withDefaults() Options {
	or(&o.Capabilities, DefaultCapabilities)
	or(&o.MaxMessage, DefaultMaxMessage)
	or(&o.MaxInFlight, 8*o.MaxMessage)
	or(&o.MaxConnections, 100_000)
	or(&o.MaxAgents, 200_000)
	or(&o.MaxAgentsPerConnection, 5_000)
	or(&o.MaxHandshakes, 256)
	or(&o.MaxWaiting, 8_192)
	or(&o.HandshakeWait, 5*time.Second)
	or(&o.MaxRequests, 1_024)
	or(&o.AcceptRate, 1_000)
	or(&o.AcceptBurst, 5_000)
	or(&o.Heartbeat, 30*time.Second)
	or(&o.PingTimeout, 10*time.Second)
	or(&o.FirstMessage, 30*time.Second)
	or(&o.MessageTimeout, time.Minute)
	or(&o.WriteTimeout, 10*time.Second)
	or(&o.RetryAfter, 30*time.Second)
	or(&o.Drain, 5*time.Second)
	or(&o.Retain, 24*time.Hour)
	return o
}
