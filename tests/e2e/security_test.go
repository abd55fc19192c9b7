package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configtls"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// selfSigned writes a certificate for 127.0.0.1 that is its own CA.
func selfSigned(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	return write("tls.crt", "CERTIFICATE", der), write("tls.key", "PRIVATE KEY", keyDER)
}

// The gateway's TLS and authentication are switched on by environment, and then let nobody else in.
func TestGatewaySecurity(t *testing.T) {
	t.Parallel()
	cert, key := selfSigned(t)
	trusting := &configtls.ClientConfig{Config: configtls.Config{CAFile: cert}}
	known := &configtls.ClientConfig{Config: configtls.Config{CAFile: cert, CertFile: cert, KeyFile: key}}
	serverTLS := map[string]string{"COLLIE_OTLP_TLS": "true", "COLLIE_OTLP_CERT_FILE": cert, "COLLIE_OTLP_KEY_FILE": key}
	bearer := func(token string) map[string]string { return map[string]string{"authorization": "Bearer " + token} }
	with := func(base map[string]string, k, v string) map[string]string {
		env := map[string]string{k: v}
		for k, v := range base {
			env[k] = v
		}
		return env
	}
	type client struct {
		headers map[string]string
		tls     *configtls.ClientConfig
	}
	for name, tc := range map[string]struct {
		env        map[string]string
		accepted   client
		turnedAway []client
	}{
		"TLS":        {serverTLS, client{tls: trusting}, []client{{}, {tls: &configtls.ClientConfig{}}}},
		"mutual TLS": {with(serverTLS, "COLLIE_OTLP_CLIENT_CA_FILE", cert), client{tls: known}, []client{{tls: trusting}}},
		"token": {
			map[string]string{"COLLIE_OTLP_AUTH": "true", "COLLIE_OTLP_TOKEN": "s3cret"},
			client{headers: bearer("s3cret")},
			[]client{{}, {headers: bearer("guess")}, {headers: bearer("")}},
		},
	} {
		for _, protocol := range []string{traffic.ProtocolGRPC, traffic.ProtocolHTTP} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				t.Parallel()
				sink := startSink(t)
				c := harness.Start(t, harness.Options{Configs: []string{"gateway.yaml"}, Env: with(tc.env, "COLLIE_BACKEND_ENDPOINT", sink.GRPCEndpoint())})
				send := func(from client) traffic.LoadSummary {
					cfg := traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Protocol: protocol, Traces: 10, Headers: from.headers, TLS: from.tls, Timeout: 2 * time.Second}
					if protocol == traffic.ProtocolHTTP {
						cfg.Endpoints = []string{c.HTTP()}
					}
					return load(t, cfg)
				}
				for _, stranger := range tc.turnedAway {
					require.Zero(t, send(stranger).Acknowledged)
				}
				awaitAll(t, sink, send(tc.accepted), 30*time.Second)
				require.NotContains(t, c.Log(), "s3cret")
			})
		}
	}
}

// Authentication switched on and no token given: nobody gets in, rather than everybody.
func TestGatewayAuthenticationWithoutToken(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Configs: []string{"gateway.yaml"}, Env: map[string]string{"COLLIE_OTLP_AUTH": "true"}})
	for _, header := range []map[string]string{nil, {"authorization": "Bearer "}, {"authorization": "Bearer"}, {"authorization": ""}} {
		sum := load(t, traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Traces: 10, Headers: header})
		require.Zero(t, sum.Acknowledged, "%v", header)
	}
}
