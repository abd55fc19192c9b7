package agent

import (
	"context"
	"net/http"
	"time"
)

// Transport is how messages travel (spec "Transports").
type Transport int

// The transports of the protocol.
const (
	WebSocket Transport = iota
	HTTP
)

// DefaultMaxMessage bounds a message of the server after decompression (spec "Message Size Limits").
const DefaultMaxMessage = 64 << 20

// Settings is how to reach the server. They may change while the session lasts.
type Settings struct {
	Transport Transport
	// Endpoint is the URL: ws or wss, http or https.
	Endpoint string
	// Client carries TLS, proxy, authentication and headers, for both transports. It must not follow HTTP/2.
	Client *http.Client
	// Interval is the time between heartbeats over WebSocket (0: none), and between polls over HTTP.
	Interval time.Duration
	// MaxMessage bounds a message in bytes after decompression; 0 means DefaultMaxMessage.
	MaxMessage int64
	// Key tells two settings apart: when it changes, the session leaves the old connection for the new one.
	Key string
	// Trusted says that nobody but the server can speak through this connection: verified TLS, or plaintext that does
	// not leave the machine.
	Trusted bool
	// RequestCertificate has the server asked for a client certificate, when it issues them.
	RequestCertificate bool
	// With makes the settings that result when an offer is laid over these; an error says, without secrets, why it is
	// refused. nil: offers are refused.
	With func(context.Context, Offer) (Settings, error)
}

func (s Settings) maxMessage() int64 {
	if s.MaxMessage > 0 {
		return s.MaxMessage
	}
	return DefaultMaxMessage
}
