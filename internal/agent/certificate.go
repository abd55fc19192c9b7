package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"go.uber.org/zap"
)

// askEvery is the time between two requests for a certificate on one connection, both with the same key: an approval
// may take a person's time, and a renewal that was lost must not end in an expired certificate.
const askEvery = time.Hour

// certificateRequest is the private key behind a CSR, and for whom it is.
type certificateRequest struct {
	InstanceUID uuid.UUID `json:"instance_uid"`
	Key         string    `json:"key"` // PEM
}

// requestCertificate asks the server for a client certificate when it is time (spec "Connection Settings Request").
func (s *Session) requestCertificate(now time.Time) {
	o, uid := s.offers, s.identity.uid
	if at, wanted := s.certificateDue(now); !wanted || at.After(now) {
		return
	}
	o.asked, o.askedFor = now, uid
	csr, err := o.certificateRequest(uid)
	if err != nil {
		s.logger().Warn("No client certificate can be asked for.", zap.Error(err))
		return
	}
	s.report.requestConnection(&protobufs.ConnectionSettingsRequest{Opamp: &protobufs.OpAMPConnectionSettingsRequest{
		CertificateRequest: &protobufs.CertificateRequest{Csr: csr},
	}})
}

// certificateDue says when a certificate is to be asked for, if the configuration and the server want it at all.
func (s *Session) certificateDue(now time.Time) (at time.Time, wanted bool) {
	o := s.offers
	if !s.current().RequestCertificate || s.identity.temporary ||
		s.report.announced()&protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings == 0 ||
		!s.report.serverCan(protobufs.ServerCapabilities_ServerCapabilities_AcceptsConnectionSettingsRequest) {
		return time.Time{}, false
	}
	at = now
	if c := o.applied().Certificate; c != nil && o.stored.Certified == s.identity.uid {
		at = renewAt(c)
	}
	if again := o.asked.Add(askEvery); o.askedFor == s.identity.uid && again.After(at) {
		at = again
	}
	return at, true
}

// renewAt is when two thirds of a certificate's life are over.
func renewAt(c *OfferedCertificate) time.Time {
	pair, err := tls.X509KeyPair([]byte(c.Cert), []byte(c.Key))
	if err != nil {
		return time.Time{}
	}
	return pair.Leaf.NotBefore.Add(pair.Leaf.NotAfter.Sub(pair.Leaf.NotBefore) * 2 / 3)
}

// certificateRequest makes a CSR. Its key is stored before the server hears of it, and kept until a certificate is in use.
func (o *offers) certificateRequest(uid uuid.UUID) ([]byte, error) {
	if r := o.stored.Request; r != nil && r.InstanceUID == uid {
		if csr, err := signRequest(r.Key, uid); err == nil {
			return csr, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	request := &certificateRequest{uid, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}
	previous := o.stored.Request
	o.stored.Request = request
	if err := o.save(); err != nil {
		o.stored.Request = previous
		return nil, fmt.Errorf("store a key: %w", err)
	}
	return signRequest(request.Key, uid)
}

func signRequest(keyPEM string, uid uuid.UUID) ([]byte, error) {
	block, _ := pem.Decode([]byte(keyPEM))
	if block == nil {
		return nil, errors.New("the stored key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse the stored key: %w", err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: uid.String()}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// completeKey gives a certificate that comes without a key the one of the request, or of the certificate before.
func (o *offers) completeKey(c *OfferedCertificate, now time.Time) error {
	var keys []string
	if r := o.stored.Request; r != nil {
		keys = append(keys, r.Key)
	}
	if before := o.applied().Certificate; before != nil {
		keys = append(keys, before.Key)
	}
	return c.keyPair(now, keys...)
}

// requestConnection has a request sent, once.
func (r *report) requestConnection(request *protobufs.ConnectionSettingsRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.request = request
	r.changed(partConnectionRequest)
}

// serverCan says whether the server has announced a capability.
func (r *report) serverCan(c protobufs.ServerCapabilities) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server&c != 0
}
