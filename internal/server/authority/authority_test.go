package authority_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/server/authority"
)

const (
	uid   = "018f2d3c-0000-7000-8000-000000000001"
	other = "018f2d3c-0000-7000-8000-000000000002"
)

func open(t testing.TB, dir string) *authority.Authority {
	t.Helper()
	a, err := authority.Open(dir, time.Now)
	require.NoError(t, err)
	return a
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	return key
}

// request is what an agent sends, with what it asks for beside.
func request(t testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func named(name string) x509.CertificateRequest {
	return x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
}

func parse(t testing.TB, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(certPEM)
	require.NotNil(t, block)
	require.Empty(t, rest)
	certificate, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return certificate
}

func TestSign(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	strongRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	serials := map[string]bool{}
	for name, csr := range map[string][]byte{
		"as our agent sends it":    request(t, newKey(t, elliptic.P256()), named(uid)),
		"upper case":               request(t, newKey(t, elliptic.P384()), named(strings.ToUpper(uid))),
		"no name":                  request(t, ed, x509.CertificateRequest{}),
		"a name that is no UUID":   request(t, strongRSA, named("node-7")),
		"its own UID as SAN":       request(t, newKey(t, elliptic.P521()), x509.CertificateRequest{URIs: uris(uid), DNSNames: []string{uid}}),
		"white space after it":     append(request(t, ed, named(uid)), "\r\n\n"...),
		"extensions that are fine": request(t, ed, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{usage(t, 0x80), constraints(t, false)}}),
	} {
		t.Run(name, func(t *testing.T) {
			certPEM, err := a.Sign(csr, uid, time.Hour)
			require.NoError(t, err)
			c := parse(t, certPEM)
			got, ok := authority.UIDOf(c)
			require.True(t, ok)
			require.Equal(t, uid, got)
			require.Equal(t, "CN="+uid, c.Subject.String())
			require.Equal(t, "urn:uuid:"+uid, c.URIs[0].String())
			require.Empty(t, c.DNSNames)
			require.False(t, c.IsCA)
			require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, c.ExtKeyUsage)
			require.WithinDuration(t, time.Now().Add(-5*time.Minute), c.NotBefore, time.Minute)
			require.WithinDuration(t, time.Now().Add(time.Hour), c.NotAfter, time.Minute)
			require.Greater(t, c.SerialNumber.BitLen(), 64)
			require.False(t, serials[c.SerialNumber.String()])
			serials[c.SerialNumber.String()] = true
			verify(t, a, c)
		})
	}
}

func verify(t testing.TB, a *authority.Authority, c *x509.Certificate) {
	t.Helper()
	_, err := c.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err)
	_, err = c.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	require.Error(t, err, "it is for clients alone")
}

func uris(id string) []*url.URL { return []*url.URL{{Scheme: "urn", Opaque: "uuid:" + id}} }

func usage(t testing.TB, bits byte) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(asn1.BitString{Bytes: []byte{bits}, BitLength: 8})
	require.NoError(t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Value: value}
}

func constraints(t testing.TB, ca bool) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(struct {
		IsCA bool `asn1:"optional"`
	}{ca})
	require.NoError(t, err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: value}
}

// TestRefusals is not parallel: it sets the environment, to make a key that is too weak to be made otherwise.
func TestRefusals(t *testing.T) {
	a := open(t, t.TempDir())
	key := newKey(t, elliptic.P256())
	good := request(t, key, named(uid))
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	block, _ := pem.Decode(good)
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		csr  []byte
		want string
	}{
		"nothing":          {nil, "no PEM block"},
		"not PEM":          {[]byte("hello"), "no PEM block"},
		"another block":    {a.PEM(), "no PEM block"},
		"two":              {append(append([]byte(nil), good...), good...), "something follows"},
		"too long":         {append(append([]byte(nil), good...), strings.Repeat("\n", 16<<10)...), "want at most"},
		"no request":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}), "asn1"},
		"forged":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}), "not signed by its own key"},
		"RSA of 1024":      {request(t, weak, named(uid)), "1024 bits"},
		"P-224":            {request(t, newKey(t, elliptic.P224()), named(uid)), "224 bits"},
		"another UID":      {request(t, key, named(other)), "names the instance " + other},
		"another URI":      {request(t, key, x509.CertificateRequest{URIs: uris(other)}), "asks for the name"},
		"a host name":      {request(t, key, x509.CertificateRequest{DNSNames: []string{"collie.example"}}), "host name"},
		"an address":       {request(t, key, x509.CertificateRequest{IPAddresses: []net.IP{{127, 0, 0, 1}}}), "IP address"},
		"an e-mail":        {request(t, key, x509.CertificateRequest{EmailAddresses: []string{"a@b.example"}}), "e-mail"},
		"an authority":     {request(t, key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{constraints(t, true)}}), "to be an authority"},
		"a signer":         {request(t, key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{usage(t, 0x84)}}), "signs certificates"},
		"broken extension": {request(t, key, x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: []byte{1}}}}), "to be an authority"},
	} {
		_, err := a.Sign(c.csr, uid, time.Hour)
		require.ErrorIs(t, err, authority.ErrRequest, name)
		require.ErrorContains(t, err, c.want, name)
	}
	_, err = a.Sign(good, "UPPER", time.Hour)
	require.ErrorContains(t, err, "no instance uid")
	_, err = a.Sign(good, uid, 0)
	require.ErrorContains(t, err, "want more than 0")
}

// TestHandshake has a server that trusts one authority meet clients of it and of others.
func TestHandshake(t *testing.T) {
	t.Parallel()
	a, foreign := open(t, t.TempDir()), open(t, t.TempDir())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := authority.UIDOf(r.TLS.PeerCertificates[0])
		if !ok {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = w.Write([]byte(name))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool()}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	get := func(by *authority.Authority) (*http.Response, error) {
		key := newKey(t, elliptic.P256())
		certPEM, err := by.Sign(request(t, key, named(uid)), uid, time.Hour)
		require.NoError(t, err)
		transport := server.Client().Transport.(*http.Transport).Clone()
		defer transport.CloseIdleConnections()
		transport.TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{parse(t, certPEM).Raw}, PrivateKey: key}}
		r, err := (&http.Client{Transport: transport}).Get(server.URL)
		if err == nil {
			require.NoError(t, r.Body.Close())
		}
		return r, err
	}
	r, err := get(a)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode)
	_, err = get(foreign)
	require.Error(t, err)
}

func TestUIDOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*x509.Certificate{
		"nil":           nil,
		"no URI":        {Subject: pkix.Name{CommonName: uid}},
		"no UID":        {Subject: pkix.Name{CommonName: "x"}, URIs: uris("x")},
		"two different": {Subject: pkix.Name{CommonName: uid}, URIs: uris(other)},
		"two URIs":      {Subject: pkix.Name{CommonName: uid}, URIs: append(uris(uid), uris(uid)...)},
	} {
		_, ok := authority.UIDOf(c)
		require.False(t, ok, name)
	}
}

// FuzzSign: whatever is signed is for this agent, for a client, under the key of the request, and nothing else.
func FuzzSign(f *testing.F) {
	a := open(f, f.TempDir())
	good := request(f, newKey(f, elliptic.P256()), named(uid))
	_, err := a.Sign(good, uid, time.Hour)
	require.NoError(f, err, "a seed reaches the signature")
	f.Add(good)
	f.Add(request(f, newKey(f, elliptic.P256()), named(other)))
	f.Add(request(f, newKey(f, elliptic.P256()), x509.CertificateRequest{DNSNames: []string{"a"}, ExtraExtensions: []pkix.Extension{constraints(f, true)}}))
	f.Fuzz(func(t *testing.T, csr []byte) {
		certPEM, err := a.Sign(csr, uid, time.Hour)
		if err != nil {
			require.ErrorIs(t, err, authority.ErrRequest)
			return
		}
		c := parse(t, certPEM)
		got, ok := authority.UIDOf(c)
		require.True(t, ok)
		require.Equal(t, uid, got)
		require.False(t, c.IsCA)
		require.Empty(t, c.DNSNames)
		block, _ := pem.Decode(csr)
		asked, err := x509.ParseCertificateRequest(block.Bytes)
		require.NoError(t, err)
		require.Equal(t, asked.PublicKey, c.PublicKey)
		verify(t, a, c)
	})
}
