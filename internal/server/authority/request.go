package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

const (
	// maxRequest is far above any real request; the sizes of keys bound the work of verifying it.
	maxRequest = 16 << 10
	minRSA     = 2048
	maxRSA     = 8192
	minCurve   = 256
)

var (
	oidCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
)

func nameOf(uid string) pkix.Name { return pkix.Name{CommonName: uid} }

// parseRequest reads a request whose key is strong and whose signature is by that key.
func parseRequest(csrPEM []byte) (*x509.CertificateRequest, error) {
	if len(csrPEM) > maxRequest {
		return nil, fmt.Errorf("it has %d bytes, want at most %d", len(csrPEM), maxRequest)
	}
	block, rest := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, errors.New("it is no PEM block of type CERTIFICATE REQUEST")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("something follows the request: send one alone")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := strong(request.PublicKey); err != nil {
		return nil, err
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("it is not signed by its own key: %w", err)
	}
	return request, nil
}

func strong(key any) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return fmt.Errorf("its RSA key has %d bits, want %d to %d", bits, minRSA, maxRSA)
		}
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits < minCurve {
			return fmt.Errorf("its curve has %d bits, want P-256 or above", bits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("its key is of an unknown kind (%T): want ECDSA, Ed25519 or RSA", key)
	}
	return nil
}

// check refuses a request that asks for more than a certificate of this agent. Nothing of what it asks for is copied; one that
// asks in vain is told so all the same.
func check(request *x509.CertificateRequest, uid string) error {
	for _, name := range request.Subject.Names {
		text, _ := name.Value.(string)
		if named, err := uuid.Parse(text); name.Type.Equal(oidCommonName) && err == nil && named.String() != uid {
			return fmt.Errorf("it names the instance %s, but comes from %s", named, uid)
		}
	}
	for _, uri := range request.URIs {
		if uri.String() != uriOf(uid).String() {
			return fmt.Errorf("it asks for the name %.200q: want none, or %s", uri, uriOf(uid))
		}
	}
	for _, name := range request.DNSNames {
		if name != uid {
			return fmt.Errorf("it asks for the host name %.200q: a client certificate has none", name)
		}
	}
	if len(request.EmailAddresses)+len(request.IPAddresses) > 0 {
		return errors.New("it asks for an e-mail or IP address: a client certificate has none")
	}
	return checkExtensions(request.Extensions)
}

func checkExtensions(extensions []pkix.Extension) error {
	for _, e := range extensions {
		switch {
		case e.Id.Equal(oidBasicConstraints):
			var constraints struct {
				IsCA       bool `asn1:"optional"`
				MaxPathLen int  `asn1:"optional,default:-1"`
			}
			if _, err := asn1.Unmarshal(e.Value, &constraints); err != nil || constraints.IsCA {
				return errors.Join(errors.New("it asks to be an authority"), err)
			}
		case e.Id.Equal(oidKeyUsage):
			var usage asn1.BitString
			// Bits 5 and 6 are keyCertSign and cRLSign (RFC 5280, section 4.2.1.3).
			if _, err := asn1.Unmarshal(e.Value, &usage); err != nil || usage.At(5)+usage.At(6) > 0 {
				return errors.Join(errors.New("it asks for a key that signs certificates"), err)
			}
		}
	}
	return nil
}
