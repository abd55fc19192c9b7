package agent

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"
)

// maxOffer bounds an offer, which is kept on disk, in bytes.
const maxOffer = 1 << 20

// Offer is what the server wants changed in its own connection (spec "OpAMPConnectionSettings"), over the local
// configuration: what is not set stays as it is configured. It holds secrets, is kept on disk, and is never logged.
type Offer struct {
	// Endpoint has one of the schemes ws, wss, http, https.
	Endpoint string `json:"endpoint"`
	// Headers take the place of the configured ones; an empty map is no headers, nil leaves them.
	Headers map[string]string `json:"headers"`
	TLS     *OfferedTLS       `json:"tls"`
	Proxy   *OfferedProxy     `json:"proxy"`
	// Certificate is the client's; nil leaves the configured one, if there is one.
	Certificate *OfferedCertificate `json:"certificate"`
	// Interval is the time between heartbeats or polls; 0 leaves the configured one. The session sees to it.
	Interval time.Duration `json:"interval"`
}

// OfferedTLS says how the server is verified; empty fields stay as they are configured.
type OfferedTLS struct {
	CA           string   `json:"ca"` // PEM, in place of the configured one
	SystemCAs    bool     `json:"system_cas"`
	SkipVerify   bool     `json:"skip_verify"`
	MinVersion   string   `json:"min_version"` // "1.2" or "1.3"
	MaxVersion   string   `json:"max_version"`
	CipherSuites []string `json:"cipher_suites"`
}

// OfferedProxy is a proxy with the headers of its CONNECT.
type OfferedProxy struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
}

// OfferedCertificate is a client certificate with its key, both PEM.
type OfferedCertificate struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// merged lays a message over an offer that is in force. Only a certificate that is not offered again is forgotten, as
// the protocol demands, unless the message is about the interval alone.
func (o Offer) merged(m *protobufs.OpAMPConnectionSettings) Offer {
	if seconds := m.HeartbeatIntervalSeconds; seconds > 0 {
		o.Interval = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	if m.DestinationEndpoint == "" && m.Headers == nil && m.Certificate == nil && m.Tls == nil && m.Proxy == nil {
		return o
	}
	if m.DestinationEndpoint != "" {
		o.Endpoint = m.DestinationEndpoint
	}
	if m.Headers != nil {
		o.Headers = headersOf(m.Headers)
	}
	if t := m.Tls; t != nil {
		o.TLS = &OfferedTLS{t.CaPemContents, t.IncludeSystemCaCertsPool, t.InsecureSkipVerify, t.MinVersion, t.MaxVersion, t.CipherSuites}
	}
	if p := m.Proxy; p.GetUrl() != "" {
		o.Proxy = &OfferedProxy{p.Url, headersOf(p.ConnectHeaders)}
	}
	// The CA of the certificate is for servers: the protocol recommends that agents trust it for nothing.
	o.Certificate = nil
	if c := m.Certificate; c != nil {
		o.Certificate = &OfferedCertificate{string(c.Cert), string(c.PrivateKey)}
	}
	return o
}

func headersOf(h *protobufs.Headers) map[string]string {
	headers := map[string]string{}
	for _, header := range h.GetHeaders() {
		headers[header.Key] = header.Value
	}
	return headers
}

// sameConnection says whether two offers differ in nothing that a connection is made with.
func (o Offer) sameConnection(other Offer) bool {
	o.Interval, other.Interval = 0, 0
	return reflect.DeepEqual(o, other)
}

// checkOffer refuses what a connection must not bring about: less protection than it has itself, or trust in somebody
// whom nobody vouches for.
func checkOffer(m *protobufs.OpAMPConnectionSettings, over Settings) error {
	if size := proto.Size(m); size > maxOffer {
		return fmt.Errorf("the offer has %d bytes, more than %d", size, maxOffer)
	}
	if m.DestinationEndpoint != "" {
		u, err := url.Parse(m.DestinationEndpoint)
		if err != nil {
			return errors.New("destination_endpoint is not a URL") // the cause would quote it
		}
		if u.User != nil {
			return errors.New("destination_endpoint holds credentials: offer them as headers")
		}
		if isTLS(over.Endpoint) && !isTLS(m.DestinationEndpoint) {
			return fmt.Errorf("destination_endpoint would give up TLS for %s", u.Scheme)
		}
	}
	if t := m.Tls; t != nil && (t.CaPemContents != "" || t.IncludeSystemCaCertsPool) && !over.Trusted {
		return errors.New("a CA is taken over verified TLS only")
	}
	return nil
}

func isTLS(endpoint string) bool {
	u, err := url.Parse(endpoint)
	return err == nil && (u.Scheme == "wss" || u.Scheme == "https")
}

// keyPair finds the private key of a certificate among keys, and says when it is valid.
func (c *OfferedCertificate) keyPair(now time.Time, keys ...string) error {
	if c.Key != "" {
		keys = []string{c.Key}
	}
	for _, key := range keys {
		pair, err := tls.X509KeyPair([]byte(c.Cert), []byte(key))
		if err != nil {
			continue
		}
		if now.After(pair.Leaf.NotAfter) {
			return fmt.Errorf("the offered certificate has expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		c.Key = key
		return nil
	}
	return errors.New("the offered certificate cannot be read, or there is no private key that fits it")
}
