package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

const issuesCertificates = takesConfig | protobufs.ServerCapabilities_ServerCapabilities_AcceptsConnectionSettingsRequest

// issue signs a CSR, for a life that has begun at begin.
func issue(t testing.TB, csrPEM []byte, begin time.Time, life time.Duration) []byte {
	t.Helper()
	block, _ := pem.Decode(csrPEM)
	require.NotNil(t, block)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, csr.CheckSignature())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(begin.UnixNano()), Subject: csr.Subject, NotBefore: begin, NotAfter: begin.Add(life)}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, csr.PublicKey, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// requested is what goes out: the CSR of the next message, if there is one.
func requested(s *Session, now time.Time) []byte {
	s.offersDue(now)
	out, _ := s.report.next(now, true)
	return out.message.ConnectionSettingsRequest.GetOpamp().GetCertificateRequest().GetCsr()
}

// requestingSession has heard of a server that issues certificates.
func requestingSession(t *testing.T) *Session {
	t.Helper()
	s := newTestSession(t)
	s.settings.RequestCertificate = true
	s.settings.With = func(context.Context, Offer) (Settings, error) { return Settings{}, nil }
	s.report.setServerCapabilities(issuesCertificates)
	return s
}

// accept takes a certificate as if the connection with it had worked.
func accept(s *Session, cert, key []byte) {
	s.take(hashOf(&protobufs.ConnectionSettingsOffers{Hash: cert}), &protobufs.OpAMPConnectionSettings{
		Certificate: &protobufs.TLSCertificate{Cert: cert, PrivateKey: key},
	}, time.Now())
	if s.offers.phase == waiting {
		s.offers.phase, s.offers.reported, s.offers.limit = trying, true, time.NewTimer(time.Hour)
		_ = s.verify(&protobufs.ServerToAgent{InstanceUid: s.identity.uid[:]})
	}
}

func TestCertificateRequest(t *testing.T) {
	t.Parallel()
	s, now := requestingSession(t), time.Now()
	csr := requested(s, now)
	block, _ := pem.Decode(csr)
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, s.InstanceUID().String(), parsed.Subject.CommonName)
	require.IsType(t, &ecdsa.PublicKey{}, parsed.PublicKey)
	require.Nil(t, requested(s, now.Add(time.Minute)), "once on a connection")
	same := func(other []byte) bool {
		block, _ := pem.Decode(other)
		again, err := x509.ParseCertificateRequest(block.Bytes)
		return err == nil && parsed.PublicKey.(*ecdsa.PublicKey).Equal(again.PublicKey)
	}
	require.True(t, same(requested(s, now.Add(askEvery))), "a request that has not been answered is repeated, with the same key")

	// The next process uses the key that the server has been told of.
	s.offers.begin(Settings{})
	next, err := Open(Options{StorageDirectory: s.identity.directory, Logger: zap.NewNop()}, Settings{})
	require.NoError(t, err)
	require.Equal(t, s.offers.stored.Request, next.offers.stored.Request)
	info, err := os.Stat(s.offers.path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	life := 3 * time.Hour
	accept(s, issue(t, csr, now, life), nil)
	require.Equal(t, applied, s.offers.stored.Last.Status, s.offers.stored.Last.Message)
	require.Nil(t, s.offers.stored.Request)
	require.Contains(t, s.offers.applied().Certificate.Key, "PRIVATE KEY")
	s.offers.begin(Settings{})
	require.Nil(t, requested(s, now), "there is a valid one")
	require.Nil(t, requested(s, now.Add(119*time.Minute)))
	renewal := requested(s, now.Add(121*time.Minute))
	require.NotNil(t, renewal, "two thirds are over")
	require.False(t, same(renewal), "a new key")

	accept(s, issue(t, renewal, now, life), nil)
	s.offers.begin(Settings{})
	require.Nil(t, requested(s, now))
	s.changeIdentity(uidB)
	s.report.lacking = 0
	block, _ = pem.Decode(requested(s, now))
	parsed, err = x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, uidB.String(), parsed.Subject.CommonName, "another instance UID")
}

func TestCertificateNotRequested(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s *Session){
		"not configured":          func(s *Session) { s.settings.RequestCertificate = false },
		"server does not issue":   func(s *Session) { s.report.setServerCapabilities(takesConfig) },
		"offers are not accepted": func(s *Session) { s.SetCapabilities(0) },
		"temporary identity":      func(s *Session) { s.identity.temporary = true },
		"no storage":              func(s *Session) { s.offers.path = "/dev/null/below/file" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := requestingSession(t)
			change(s)
			require.Nil(t, requested(s, time.Now()))
		})
	}
}

func TestCertificateRefused(t *testing.T) {
	t.Parallel()
	foreign := func(t *testing.T, s *Session) []byte {
		t.Helper()
		other, err := (&offers{path: t.TempDir() + "/other"}).certificateRequest(s.identity.uid)
		require.NoError(t, err)
		return other
	}
	for name, tt := range map[string]struct {
		offer  func(t *testing.T, s *Session, csr []byte)
		reason string
	}{
		"for another key": {func(t *testing.T, s *Session, _ []byte) {
			accept(s, issue(t, foreign(t, s), time.Now(), time.Hour), nil)
		}, "no private key that fits"},
		"garbage": {func(_ *testing.T, s *Session, _ []byte) { accept(s, []byte("garbage"), []byte("garbage")) }, "cannot be read"},
		"expired": {func(t *testing.T, s *Session, csr []byte) {
			accept(s, issue(t, csr, time.Now().Add(-2*time.Hour), time.Hour), nil)
		}, "expired"},
		"no storage": {func(t *testing.T, s *Session, csr []byte) {
			s.offers.path = "/dev/null/below/file"
			accept(s, issue(t, csr, time.Now(), time.Hour), nil)
		}, "cannot be stored"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := requestingSession(t)
			tt.offer(t, s, requested(s, time.Now()))
			require.Equal(t, failed, s.offers.stored.Last.Status)
			require.Contains(t, s.offers.stored.Last.Message, tt.reason)
			require.Nil(t, s.offers.stored.Applied)
			require.NotContains(t, s.offers.stored.Last.Message, "PRIVATE")
		})
	}
}

// TestExpiredCertificate: an offered certificate that has run out does not keep the agent from its server.
func TestExpiredCertificate(t *testing.T) {
	t.Parallel()
	s, used := requestingSession(t), Offer{}
	csr := requested(s, time.Now())
	s.settings.With = func(_ context.Context, o Offer) (Settings, error) { used = o; return Settings{}, nil }
	s.offers.stored.Applied = &storedOffer{[]byte("h"), Offer{
		Endpoint: "wss://a", Certificate: &OfferedCertificate{string(issue(t, csr, time.Now().Add(-2*time.Hour), time.Hour)), s.offers.stored.Request.Key},
	}}
	s.offers.stored.Certified = s.identity.uid
	s.choose(t.Context())
	require.Equal(t, "wss://a", used.Endpoint)
	require.Nil(t, used.Certificate)
	require.NotNil(t, s.offers.applied().Certificate)
	s.offers.begin(Settings{})
	require.NotNil(t, requested(s, time.Now()))
}
