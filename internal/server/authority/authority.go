// Package authority is a certificate authority for the client certificates of agents. It lives in two files on the server, and
// knows nothing of who may have a certificate: whoever calls Sign has decided that. Its certificate is trusted for client
// authentication alone, and only by a server that is given Pool.
package authority

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
)

// backdated is by how much the clock of an agent may be behind.
const backdated = 5 * time.Minute

// ErrRequest: the request can never be signed; its text says why.
var ErrRequest = errors.New("certificate request refused")

// Authority signs client certificates. It is safe for concurrent use.
type Authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	now         func() time.Time
}

// Pool is what a server has to trust to know the certificates of this authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// PEM is the authority's certificate, for those who verify clients elsewhere.
func (a *Authority) PEM() []byte { return encode(typeCertificate, a.certificate.Raw) }

// Sign makes a certificate for the agent with this UID, from a request (PKCS #10 in PEM) that its owner has signed. Of the
// request it takes the public key alone. ErrRequest if the request is not signed right, has a weak key, or asks for what the
// agent may not have: to be an authority, another name, or another instance UID (OpAMP specification, "OpAMPConnectionSettingsRequest").
// The certificate never lives longer than the authority's.
func (a *Authority) Sign(csrPEM []byte, uid string, lifetime time.Duration) (certPEM []byte, err error) {
	if err := fleet.ValidateUID(uid); err != nil {
		return nil, err
	}
	if lifetime <= 0 {
		return nil, fmt.Errorf("a certificate cannot live for %s: want more than 0", lifetime)
	}
	request, err := parseRequest(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := check(request, uid); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	now := a.now()
	until := now.Add(lifetime)
	if until.After(a.certificate.NotAfter) {
		until = a.certificate.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf(uid, now.Add(-backdated), until), a.certificate, request.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", uid, err)
	}
	return encode(typeCertificate, der), nil
}

// leaf has no serial number: x509 takes a random one of 20 bytes.
func leaf(uid string, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: nameOf(uid), URIs: []*url.URL{uriOf(uid)}, NotBefore: from, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
}

// UIDOf returns the UID of the agent for whom Sign made the certificate. It says nothing about whether the certificate is
// genuine: the TLS handshake did that.
func UIDOf(cert *x509.Certificate) (string, bool) {
	if cert == nil || len(cert.URIs) != 1 {
		return "", false
	}
	uid := cert.Subject.CommonName
	return uid, fleet.ValidateUID(uid) == nil && cert.URIs[0].String() == uriOf(uid).String()
}

func uriOf(uid string) *url.URL { return &url.URL{Scheme: "urn", Opaque: "uuid:" + uid} }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
