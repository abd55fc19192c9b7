package control

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

// certify signs an agent's request for a certificate (spec "Client Initiated CSR"). problem is for the agent.
func (c *Control) certify(e *entry, csr []byte) (offer *protobufs.ConnectionSettingsOffers, problem string) {
	if c.authority == nil {
		return nil, "this server signs no certificates"
	}
	certificate, err := c.authority.Sign(csr, e.uid.String(), certificateLifetime)
	if err != nil {
		c.log.Warn("a request for a certificate is refused", "instance_uid", e.uid, "error", err)
		return nil, err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	wish := c.wanted(e).OpAMP
	if wish == nil {
		wish = &apiv1.OpAMPSettings{}
	}
	settings := c.opampSettings(e, wish)
	if settings == nil {
		return nil, "this server does not know its own address: it needs --public-url"
	}
	settings.Certificate = &protobufs.TLSCertificate{Cert: certificate, CaCert: c.authority.PEM()}
	sum := sha256.Sum256(certificate)
	known := &e.agent.ConnectionSettings
	known.OfferedHash, known.Basis = hex.EncodeToString(sum[:]), "certificate"
	// Other settings wait until the agent is back with it: an offer without the certificate would take it away.
	e.unsettle(c.now().Add(time.Minute))
	c.unsaved.agent(e)
	c.tell(e, fleet.CertificateIssued, known.OfferedHash, "valid for "+certificateLifetime.String())
	return &protobufs.ConnectionSettingsOffers{Hash: sum[:], Opamp: settings}, ""
}
