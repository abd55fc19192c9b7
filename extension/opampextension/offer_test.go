package opampextension

import (
	"crypto/tls"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension/extensionauth"

	"github.com/collie-otel/collie/internal/agent"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	securely = "server: {ws: {endpoint: 'wss://opamp.example/v1/opamp', headers: {Authorization: s3cr3t}}}"
	openly   = "server: {ws: {endpoint: 'ws://opamp.example/v1/opamp', headers: {Authorization: s3cr3t}}}"
)

func TestOfferRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		yaml   string
		offer  agent.Offer
		reason string // empty: it is taken
	}{
		"nothing":                        {securely, agent.Offer{}, ""},
		"other host":                     {securely, agent.Offer{Endpoint: "https://other.example"}, ""},
		"no scheme":                      {securely, agent.Offer{Endpoint: "other.example"}, "destination_endpoint"},
		"other scheme":                   {securely, agent.Offer{Endpoint: "ftp://other.example"}, "destination_endpoint"},
		"credentials in the open":        {openly, agent.Offer{Endpoint: "ws://other.example"}, "credentials"},
		"credentials to a proxy":         {openly, agent.Offer{Proxy: &agent.OfferedProxy{URL: "http://proxy.example"}}, "credentials"},
		"loopback, but through a proxy":  {openly, agent.Offer{Endpoint: "ws://127.0.0.1", Proxy: &agent.OfferedProxy{URL: "http://proxy.example"}}, "credentials"},
		"loopback":                       {openly, agent.Offer{Endpoint: "ws://127.0.0.1"}, ""},
		"same host in the open":          {openly, agent.Offer{Endpoint: "http://opamp.example:4321"}, ""},
		"offered headers in the open":    {openly, agent.Offer{Endpoint: "ws://other.example", Headers: map[string]string{"A": "b"}}, ""},
		"to TLS":                         {openly, agent.Offer{Endpoint: "wss://other.example"}, ""},
		"proxy without a port":           {securely, agent.Offer{Proxy: &agent.OfferedProxy{URL: "proxy.example"}}, ""},
		"proxy of another kind":          {securely, agent.Offer{Proxy: &agent.OfferedProxy{URL: "ftp://u:s3cr3t@proxy"}}, "proxy: url"},
		"skipped verification":           {securely, agent.Offer{TLS: &agent.OfferedTLS{SkipVerify: true}}, "insecure_skip_verify"},
		"skipped as configured":          {strings.Replace(securely, "headers", "tls: {insecure_skip_verify: true}, headers", 1), agent.Offer{TLS: &agent.OfferedTLS{SkipVerify: true}}, ""},
		"old TLS":                        {securely, agent.Offer{TLS: &agent.OfferedTLS{MinVersion: "1.1"}}, "below 1.2"},
		"older TLS than configured":      {strings.Replace(securely, "headers", "tls: {min_version: '1.3'}, headers", 1), agent.Offer{TLS: &agent.OfferedTLS{MinVersion: "1.2"}}, "below 1.3"},
		"nothing newer than old TLS":     {securely, agent.Offer{TLS: &agent.OfferedTLS{MaxVersion: "1.1"}}, "below 1.2"},
		"newer TLS":                      {securely, agent.Offer{TLS: &agent.OfferedTLS{MinVersion: "1.3"}}, ""},
		"TLS of no version":              {securely, agent.Offer{TLS: &agent.OfferedTLS{MinVersion: "x"}}, "min_version"},
		"weak cipher suites":             {strings.Replace(securely, "headers", "tls: {include_insecure_cipher_suites: true}, headers", 1), agent.Offer{TLS: &agent.OfferedTLS{CipherSuites: []string{"TLS_RSA_WITH_RC4_128_SHA"}}}, "cipher suite"},
		"CA that is none":                {securely, agent.Offer{TLS: &agent.OfferedTLS{CA: "garbage"}}, "CA"},
		"certificate without a good key": {securely, agent.Offer{Certificate: &agent.OfferedCertificate{Cert: "c", Key: "s3cr3t"}}, "TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			local, err := mustLoad(t, tt.yaml).settings(t.Context(), componenttest.NewNopHost())
			require.NoError(t, err)
			settings, err := local.With(t.Context(), tt.offer)
			if tt.reason != "" {
				require.ErrorContains(t, err, tt.reason)
				require.NotContains(t, err.Error(), "s3cr3t")
				return
			}
			require.NoError(t, err)
			require.Equal(t, local.Key, settings.Key, "the local configuration is the same")
		})
	}
}

func TestOfferSettings(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, "{server: {ws: {endpoint: 'ws://127.0.0.1/v1/opamp'}}, capabilities: {reports_heartbeat: false}}")
	local, err := cfg.settings(t.Context(), componenttest.NewNopHost())
	require.NoError(t, err)
	require.True(t, local.Trusted, "it does not leave the machine")
	require.Zero(t, local.Interval)
	http, err := local.With(t.Context(), agent.Offer{Endpoint: "http://opamp.example/"})
	require.NoError(t, err)
	require.Equal(t, agent.HTTP, http.Transport)
	require.Equal(t, 30*time.Second, http.Interval, "it must poll")
	require.False(t, http.Trusted)
	wss, err := local.With(t.Context(), agent.Offer{Endpoint: "wss://opamp.example/"})
	require.NoError(t, err)
	require.True(t, wss.Trusted)
	require.Equal(t, agent.WebSocket, wss.Transport)
}

// TestOfferHeaders: offered ones take the place of the configured ones, and of the authentication when they authenticate.
func TestOfferHeaders(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header })
	id := component.MustNewID("bearer")
	host := fakeHost{id: fakeAuth{ClientRoundTripperFunc: func(base http.RoundTripper) (http.RoundTripper, error) {
		return roundTripperFunc(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "extension")
			r.Header.Set("X-Extension", "yes")
			return base.RoundTrip(r)
		}), nil
	}}}
	var _ extensionauth.HTTPClient = fakeAuth{}
	cfg := httpConfig(Connection{Endpoint: s.URL, Auth: id, Headers: opaque(map[string]string{"X-Tenant": "one"})})
	local, err := cfg.settings(t.Context(), host)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		offer                            agent.Offer
		authorization, tenant, extension string
	}{
		"none":                {agent.Offer{Endpoint: s.URL + "/other"}, "extension", "one", "yes"},
		"empty":               {agent.Offer{Headers: map[string]string{}}, "extension", "", "yes"},
		"other":               {agent.Offer{Headers: map[string]string{"x-tenant": "two"}}, "extension", "two", "yes"},
		"with authentication": {agent.Offer{Headers: map[string]string{"authorization": "offered"}}, "offered", "", ""},
	} {
		settings, err := local.With(t.Context(), tt.offer)
		require.NoError(t, err, name)
		_, err = get(t, settings.Client, s.URL)
		require.NoError(t, err, name)
		settings.Client.CloseIdleConnections()
		h := <-seen
		require.Equal(t, []string{tt.authorization, tt.tenant, tt.extension}, []string{h.Get("Authorization"), h.Get("X-Tenant"), h.Get("X-Extension")}, name)
	}
}

// TestOfferTLS: without an offered CA the configured one holds; an offered one takes its place; a certificate is shown.
func TestOfferTLS(t *testing.T) {
	t.Parallel()
	certFile, keyFile := harness.SelfSigned(t)
	cert, err := os.ReadFile(certFile)
	require.NoError(t, err)
	key, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	shown := make(chan int, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { shown <- len(r.TLS.PeerCertificates) }))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})

	with := func(conn Connection, offer agent.Offer) (shownCertificates int, err error) {
		local, err := httpConfig(conn).settings(t.Context(), componenttest.NewNopHost())
		require.NoError(t, err)
		offer.Endpoint = s.URL + "/offered"
		settings, err := local.With(t.Context(), offer)
		require.NoError(t, err)
		defer settings.Client.CloseIdleConnections()
		if _, err = get(t, settings.Client, s.URL); err != nil {
			return 0, err
		}
		return <-shown, nil
	}
	trusting := Connection{Endpoint: s.URL}
	trusting.TLS.CAPem = "" // system CAs
	_, err = with(trusting, agent.Offer{})
	require.ErrorContains(t, err, "unknown authority", "no offer ends verification")
	_, err = with(trusting, agent.Offer{TLS: &agent.OfferedTLS{MinVersion: "1.3"}})
	require.ErrorContains(t, err, "unknown authority")
	n, err := with(trusting, agent.Offer{TLS: &agent.OfferedTLS{CA: string(ca)}})
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = with(trusting, agent.Offer{TLS: &agent.OfferedTLS{CA: string(ca)}, Certificate: &agent.OfferedCertificate{Cert: string(cert), Key: string(key)}})
	require.NoError(t, err)
	require.Equal(t, 1, n)

	plaintext := Connection{Endpoint: "http://127.0.0.1"}
	plaintext.TLS.Insecure = true
	n, err = with(plaintext, agent.Offer{TLS: &agent.OfferedTLS{CA: string(ca)}, Certificate: &agent.OfferedCertificate{Cert: string(cert), Key: string(key)}})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = with(plaintext, agent.Offer{TLS: &agent.OfferedTLS{CA: string(cert)}})
	require.ErrorContains(t, err, "unknown authority", "in place of, not beside")

	local, err := httpConfig(plaintext).settings(t.Context(), componenttest.NewNopHost())
	require.NoError(t, err)
	secured, err := local.With(t.Context(), agent.Offer{Endpoint: s.URL, TLS: &agent.OfferedTLS{MinVersion: "1.3"}})
	require.NoError(t, err)
	require.EqualValues(t, tls.VersionTLS13, secured.Client.Transport.(withHeaders).TLSClientConfig.MinVersion, "plaintext as configured ends with an offer of TLS")

	configured := Connection{Endpoint: s.URL}
	configured.TLS.CAPem, configured.TLS.CertFile, configured.TLS.KeyFile = opaque(map[string]string{"": string(ca)})[""], certFile, keyFile
	n, err = with(configured, agent.Offer{})
	require.NoError(t, err)
	require.Equal(t, 1, n, "the configured certificate and CA hold")
}
