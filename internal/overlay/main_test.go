package overlay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"runtime"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// allocated is how many bytes have been allocated so far, freed ones included.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}

// fixed is a configuration provider that returns one map, by way of YAML or as it is.
type fixed struct {
	configuration map[string]any
	asYAML        bool
}

func (f fixed) Retrieve(context.Context, string, confmap.WatcherFunc) (*confmap.Retrieved, error) {
	if !f.asYAML {
		return confmap.NewRetrieved(f.configuration)
	}
	text, err := yaml.Marshal(f.configuration)
	if err != nil {
		return nil, err
	}
	return confmap.NewRetrievedFromYAML(text)
}

func (f fixed) Scheme() string                 { return "fixed" }
func (f fixed) Shutdown(context.Context) error { return nil }

// resolve is what the Collector makes of a configuration before it unmarshals it.
func resolve(t testing.TB, configuration map[string]any, asYAML bool) *confmap.Conf {
	t.Helper()
	conf, err := tryResolve(configuration, asYAML)
	require.NoError(t, err)
	return conf
}

func tryResolve(configuration map[string]any, asYAML bool) (*confmap.Conf, error) {
	factory := confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider { return fixed{configuration, asYAML} })
	resolver, err := confmap.NewResolver(confmap.ResolverSettings{
		URIs:              []string{"fixed:"},
		ProviderFactories: []confmap.ProviderFactory{factory, envprovider.NewFactory()},
		DefaultScheme:     "env",
	})
	if err != nil {
		return nil, err
	}
	conf, err := resolver.Resolve(context.Background())
	return conf, errors.Join(err, resolver.Shutdown(context.Background()))
}

// keyPair returns a self-signed certificate and its key.
func keyPair(t testing.TB) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// headers takes names and values in turn.
func headers(namesAndValues ...string) *protobufs.Headers {
	out := &protobufs.Headers{}
	for i := 0; i < len(namesAndValues); i += 2 {
		out.Headers = append(out.Headers, &protobufs.Header{Key: namesAndValues[i], Value: namesAndValues[i+1]})
	}
	return out
}
