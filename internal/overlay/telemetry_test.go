package overlay

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/service/telemetry"
	"go.opentelemetry.io/collector/service/telemetry/otelconftelemetry"
	"go.uber.org/zap"
)

// awkward has everything that a template or a second resolution would spoil, and that a header may have.
const awkward = `a $ $$ ${env:HOME} $${X} ${x} } {" ' \ \n: # & *x !y <<: | > %41 é`

func destination(url string) *protobufs.TelemetryConnectionSettings {
	return &protobufs.TelemetryConnectionSettings{DestinationEndpoint: url}
}

// telemetryConfig unmarshals and validates service::telemetry as the Collector does.
func telemetryConfig(t testing.TB, conf *confmap.Conf) *otelconftelemetry.Config {
	t.Helper()
	sub, err := conf.Sub("service::telemetry")
	require.NoError(t, err)
	cfg := otelconftelemetry.NewFactory().CreateDefaultConfig().(*otelconftelemetry.Config)
	require.NoError(t, sub.Unmarshal(cfg))
	require.NoError(t, confmap.Validate(cfg))
	return cfg
}

// merged is a configuration with the overlay, by Merge.
func merged(t testing.TB, base, overlay map[string]any) map[string]any {
	t.Helper()
	got, err := Merge(Input{Base: base, Telemetry: overlay})
	require.NoError(t, err)
	return got
}

// The Collector's own configuration takes the overlay, and every byte of it arrives there.
func TestTelemetryIsValidAndSurvivesResolution(t *testing.T) {
	t.Setenv("HOME", "/must/not/appear")
	ca, _ := keyPair(t)
	certificate, key := keyPair(t)
	offer := &protobufs.TelemetryConnectionSettings{
		DestinationEndpoint: "https://collector.example:4318/$a/$$HOME/$$$/v1/metrics/",
		Headers:             headers("Authorization", awkward, "x-$-$$HOME", "123", "x-empty", ""),
		Tls:                 &protobufs.TLSConnectionSettings{CaPemContents: string(ca), MinVersion: "1.2"},
		Certificate:         &protobufs.TLSCertificate{Cert: certificate, PrivateKey: key},
	}
	files := &Files{Dir: filepath.Join(t.TempDir(), "$HOME ${env:HOME}")}
	overlay, err := Telemetry(nil, TelemetryOffers{Metrics: offer, Traces: offer, Logs: offer}, files)
	require.NoError(t, err)
	require.Len(t, files.Wanted(), 3, "three signals share their files")

	for _, asYAML := range []bool{false, true} {
		cfg := telemetryConfig(t, resolve(t, overlay, asYAML))
		require.Len(t, cfg.Metrics.Readers, 2)
		require.Equal(t, 8888, *cfg.Metrics.Readers[0].Pull.Exporter.Prometheus.Port)
		require.Equal(t, 10000, *cfg.Metrics.Readers[1].Periodic.Interval)
		require.Len(t, cfg.Traces.Processors, 1)
		require.Len(t, cfg.Logs.Processors, 1)
		require.False(t, cfg.Metrics.MigratedFromV02)

		metrics := cfg.Metrics.Readers[1].Periodic.Exporter.OTLP
		require.Equal(t, "http/protobuf", *metrics.Protocol)
		require.Equal(t, offer.DestinationEndpoint, *metrics.Endpoint)
		require.Nil(t, metrics.Insecure)
		for i, path := range []*string{metrics.Certificate, metrics.ClientCertificate, metrics.ClientKey} {
			want := [][]byte{ca, certificate, key}[i]
			require.Equal(t, files.Dir, filepath.Dir(*path))
			require.Contains(t, files.Wanted(), WantedFile{filepath.Base(*path), want})
		}
		got := append(metrics.Headers, cfg.Traces.Processors[0].Batch.Exporter.OTLP.Headers...)
		got = append(got, cfg.Logs.Processors[0].Batch.Exporter.OTLP.Headers...)
		require.Len(t, got, 9)
		for i, h := range got {
			require.Equal(t, offer.Headers.Headers[i%3].Key, h.Name)
			require.Equal(t, offer.Headers.Headers[i%3].Value, *h.Value)
		}
	}
}

func TestTelemetryKeepsWhatBaseHas(t *testing.T) {
	t.Parallel()
	offers := TelemetryOffers{Metrics: destination("https://m.example/v1/metrics"), Traces: destination("https://t.example/v1/traces")}
	offers.Metrics.Headers = headers("x", "y") // a list: the older form is a map
	cases := map[string]struct {
		base    string
		readers int
		check   func(t *testing.T, cfg *otelconftelemetry.Config)
	}{
		"nothing: the default reader stays": {"receivers: {nop: }", 2, func(t *testing.T, cfg *otelconftelemetry.Config) {
			defaults := otelconftelemetry.NewFactory().CreateDefaultConfig().(*otelconftelemetry.Config)
			require.Equal(t, defaults.Metrics.Readers[0], cfg.Metrics.Readers[0])
			require.Equal(t, defaults.Metrics.Level, cfg.Metrics.Level)
		}},
		"other settings only": {"service: {telemetry: {metrics: {level: detailed}, traces: {propagators: [b3]}}}", 2, func(t *testing.T, cfg *otelconftelemetry.Config) {
			require.Equal(t, "Detailed", cfg.Metrics.Level.String())
			require.Equal(t, []string{"b3"}, cfg.Traces.Propagators)
		}},
		"a reader with references": {"service: {telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: '${env:H:-127.0.0.1}', port: 9}}}}]}}}", 2, func(t *testing.T, cfg *otelconftelemetry.Config) {
			require.Equal(t, "127.0.0.1", *cfg.Metrics.Readers[0].Pull.Exporter.Prometheus.Host)
		}},
		"no readers":   {"service: {telemetry: {metrics: {readers: []}}}", 1, nil},
		"null readers": {"service: {telemetry: {metrics: {readers: }}}", 1, nil},
		"metrics off": {"service: {telemetry: {metrics: {level: None, readers: [{pull: {exporter: {prometheus: {host: 0.0.0.0, port: 8888}}}}]}, traces: {level: none, processors: [{}]}}}", 1, func(t *testing.T, cfg *otelconftelemetry.Config) {
			require.Equal(t, "Normal", cfg.Metrics.Level.String())
			require.Equal(t, "Basic", cfg.Traces.Level.String())
			require.Len(t, cfg.Traces.Processors, 1)
			require.NotNil(t, cfg.Traces.Processors[0].Batch)
		}},
		"headers in the older form": {"service: {telemetry: {metrics: {readers: [{periodic: {exporter: {otlp: {protocol: http/protobuf, endpoint: 'https://own.example', headers: {a: b}}}}}]}}}", 2, func(t *testing.T, cfg *otelconftelemetry.Config) {
			require.Equal(t, "b", *cfg.Metrics.Readers[0].Periodic.Exporter.OTLP.Headers[0].Value)
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := fromYAML(t, c.base)
			before := toYAML(t, base)
			overlay, err := Telemetry(base, offers, nil)
			require.NoError(t, err)
			require.Equal(t, before, toYAML(t, base))
			again, err := Telemetry(base, offers, nil)
			require.NoError(t, err)
			require.Equal(t, overlay, again, "the same offer gives the same overlay")
			cfg := telemetryConfig(t, resolve(t, merged(t, base, overlay), false))
			require.Len(t, cfg.Metrics.Readers, c.readers)
			require.Equal(t, "https://m.example/v1/metrics", *cfg.Metrics.Readers[c.readers-1].Periodic.Exporter.OTLP.Endpoint)
			require.Empty(t, cfg.Logs.Processors)
			if c.check != nil {
				c.check(t, cfg)
			}
			spoil(overlay)
			require.Equal(t, before, toYAML(t, base), "nothing is shared")
		})
	}
}

func TestNoDestinationIsNoOverlay(t *testing.T) {
	t.Parallel()
	for _, offers := range []TelemetryOffers{{}, {Metrics: destination("")}, {Logs: &protobufs.TelemetryConnectionSettings{Headers: headers("a", "b")}}} {
		overlay, err := Telemetry(fromYAML(t, base), offers, nil)
		require.NoError(t, err)
		require.Nil(t, overlay)
	}
	overlay, err := Telemetry(nil, TelemetryOffers{Metrics: destination(""), Traces: destination("https://h/v1/traces")}, nil)
	require.NoError(t, err)
	require.NotContains(t, get(overlay, "service::telemetry"), "metrics")
}

func TestTelemetryRefuses(t *testing.T) {
	t.Parallel()
	certificate, key := keyPair(t)
	https := func(change func(o *protobufs.TelemetryConnectionSettings)) *protobufs.TelemetryConnectionSettings {
		o := destination("https://h.example/v1/metrics")
		change(o)
		return o
	}
	withTLS := func(s *protobufs.TLSConnectionSettings) *protobufs.TelemetryConnectionSettings {
		return https(func(o *protobufs.TelemetryConnectionSettings) { o.Tls = s })
	}
	for name, c := range map[string]struct {
		offer *protobufs.TelemetryConnectionSettings
		want  string
	}{
		"plain http":            {destination("http://h.example/v1/metrics"), "plain http to h.example is not accepted"},
		"plain http, odd name":  {destination("http://localhost.example/v1/metrics"), "plain http"},
		"another scheme":        {destination("ftp://h.example/"), "not an http or https URL"},
		"upper-case scheme":     {destination("HTTPS://h.example/"), "not an http or https URL"},
		"no scheme":             {destination("h.example:4318"), "not an http or https URL"},
		"no host":               {destination("https:///v1/metrics"), "has no host"},
		"only a port":           {destination("https://:4318/v1/metrics"), "has no host"},
		"not a URL":             {destination("https://h:x/%zz"), "not a URL"},
		"a line break":          {destination("https://h.example/\nx"), "not a URL"},
		"user and password":     {destination("https://user:secret@h.example/"), "more than scheme"},
		"a query":               {destination("https://h.example/?token=x"), "more than scheme"},
		"an empty query":        {destination("https://h.example/?"), "more than scheme"},
		"a fragment":            {destination("https://h.example/#x"), "more than scheme"},
		"an escaped path":       {destination("https://h.example/a%2Fb"), "cannot be sent as it is written"},
		"a space":               {destination("https://h.example/a%20"), "cannot be sent as it is written"},
		"a header's line break": {https(func(o *protobufs.TelemetryConnectionSettings) { o.Headers = headers("a", "b\r\nc: d") }), "header a: its value"},
		"a header's name":       {https(func(o *protobufs.TelemetryConnectionSettings) { o.Headers = headers("a b", "c") }), `header "a b" is not a valid name`},
		"a header without name": {https(func(o *protobufs.TelemetryConnectionSettings) { o.Headers = headers("", "c") }), "not a valid name"},
		"a header's bytes":      {https(func(o *protobufs.TelemetryConnectionSettings) { o.Headers = headers("a", "\xff") }), "its value has bytes"},
		"a header twice":        {https(func(o *protobufs.TelemetryConnectionSettings) { o.Headers = headers("a", "b", "A", "c") }), "header A is there twice"},
		"no verification":       {withTLS(&protobufs.TLSConnectionSettings{InsecureSkipVerify: true}), "insecure_skip_verify is not accepted"},
		"an old version":        {withTLS(&protobufs.TLSConnectionSettings{MinVersion: "1.0"}), `version "1.0" is not accepted`},
		"a minimum":             {withTLS(&protobufs.TLSConnectionSettings{MinVersion: "1.3"}), "no setting for versions"},
		"a maximum":             {withTLS(&protobufs.TLSConnectionSettings{MaxVersion: "1.2"}), "no setting for versions"},
		"versions crossed":      {withTLS(&protobufs.TLSConnectionSettings{MinVersion: "1.3", MaxVersion: "1.2"}), "min_version is above max_version"},
		"cipher suites":         {withTLS(&protobufs.TLSConnectionSettings{CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}}), "no setting for versions and cipher suites"},
		"weak cipher suites":    {withTLS(&protobufs.TLSConnectionSettings{CipherSuites: []string{"TLS_RSA_WITH_RC4_128_SHA"}}), "not known or not secure"},
		"two kinds of CA":       {withTLS(&protobufs.TLSConnectionSettings{CaPemContents: string(certificate), IncludeSystemCaCertsPool: true}), "not both"},
		"no CA":                 {withTLS(&protobufs.TLSConnectionSettings{CaPemContents: "x"}), "has no certificate"},
		"no key": {https(func(o *protobufs.TelemetryConnectionSettings) {
			o.Certificate = &protobufs.TLSCertificate{Cert: certificate}
		}), "certificate: "},
		"an empty certificate": {https(func(o *protobufs.TelemetryConnectionSettings) { o.Certificate = &protobufs.TLSCertificate{} }), "certificate: "},
		"a proxy": {https(func(o *protobufs.TelemetryConnectionSettings) {
			o.Proxy = &protobufs.ProxyConnectionSettings{Url: "http://p"}
		}), "proxy: "},
		"a proxy's headers": {https(func(o *protobufs.TelemetryConnectionSettings) {
			o.Proxy = &protobufs.ProxyConnectionSettings{ConnectHeaders: headers("a", "b")}
		}), "proxy: "},
		"certificate over http": {&protobufs.TelemetryConnectionSettings{DestinationEndpoint: "http://127.0.0.1/", Certificate: &protobufs.TLSCertificate{Cert: certificate, PrivateKey: key}}, "the endpoint is not https"},
		"CA over http":          {&protobufs.TelemetryConnectionSettings{DestinationEndpoint: "http://127.0.0.1/", Tls: &protobufs.TLSConnectionSettings{CaPemContents: string(certificate)}}, "certificate: the endpoint is not https"},
		"nowhere to put a file": {withTLS(&protobufs.TLSConnectionSettings{CaPemContents: string(certificate)}), "no directory for certificates"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Telemetry(nil, TelemetryOffers{Metrics: c.offer, Logs: c.offer}, nil)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "own metrics: ")
			require.ErrorContains(t, err, "own logs: ", "all errors at once")
			require.NotContains(t, err.Error(), "secret")
		})
	}
}

func TestTelemetryAccepts(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"http://127.0.0.1:4318/v1/metrics", "http://[::1]:4318/", "http://localhost", "https://h.example", "https://h.example:4318/a/b/"} {
		_, err := Telemetry(nil, TelemetryOffers{Metrics: destination(url)}, nil)
		require.NoError(t, err, url)
	}
	_, err := Telemetry(nil, TelemetryOffers{Metrics: destination("http://h.example/v1/metrics"), AllowHTTP: true}, nil)
	require.NoError(t, err)
	harmless := destination("https://h.example/v1/metrics")
	harmless.Tls = &protobufs.TLSConnectionSettings{MinVersion: "1.2", MaxVersion: "1.3", IncludeSystemCaCertsPool: true}
	harmless.Proxy = &protobufs.ProxyConnectionSettings{}
	_, err = Telemetry(nil, TelemetryOffers{Metrics: harmless}, nil)
	require.NoError(t, err)
}

func TestTelemetryNeedsAReadableBase(t *testing.T) {
	t.Parallel()
	for _, base := range []string{
		"service: ${file:x}", "service: {telemetry: '${file:x}'}", "service: {telemetry: {metrics: '${file:x}'}}",
		"service: {telemetry: {metrics: {readers: '${file:x}'}}}",
	} {
		_, err := Telemetry(fromYAML(t, base), TelemetryOffers{Metrics: destination("https://h.example")}, nil)
		require.ErrorContains(t, err, "base configuration: ", base)
		require.ErrorContains(t, err, "written out in place", base)
	}
}

// The Collector's own telemetry, built from the overlay, reaches a server that wants a client certificate.
func TestOwnMetricsArriveOverMutualTLS(t *testing.T) {
	certificate, key := keyPair(t)
	arrived := make(chan *http.Request, 10)
	sink := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case arrived <- r:
		default:
		}
	}))
	clients := x509.NewCertPool()
	require.True(t, clients.AppendCertsFromPEM(certificate))
	sink.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	sink.StartTLS()
	defer sink.Close()

	offer := &protobufs.TelemetryConnectionSettings{
		DestinationEndpoint: sink.URL + "/own/metrics",
		Headers:             headers("Authorization", awkward),
		Tls: &protobufs.TLSConnectionSettings{
			CaPemContents: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sink.Certificate().Raw})),
		},
		Certificate: &protobufs.TLSCertificate{Cert: certificate, PrivateKey: key},
	}
	files := &Files{Dir: t.TempDir()}
	base := fromYAML(t, "service: {telemetry: {metrics: {readers: []}}}")
	overlay, err := Telemetry(base, TelemetryOffers{Metrics: offer}, files)
	require.NoError(t, err)
	for _, f := range files.Wanted() {
		require.NoError(t, os.WriteFile(filepath.Join(files.Dir, f.Name), f.Content, 0o600))
	}
	cfg := telemetryConfig(t, resolve(t, overlay, true))
	factory := otelconftelemetry.NewFactory()
	set := telemetry.Settings{BuildInfo: component.NewDefaultBuildInfo()}
	resource, err := factory.CreateResource(t.Context(), set, cfg)
	require.NoError(t, err)
	set.Resource = &resource
	meters, err := factory.CreateMeterProvider(t.Context(), telemetry.MeterSettings{Settings: set, Logger: zap.NewNop()}, cfg)
	require.NoError(t, err)
	counter, err := meters.Meter("test").Int64Counter("test")
	require.NoError(t, err)
	counter.Add(t.Context(), 1)
	require.NoError(t, meters.Shutdown(t.Context()), "shutting down sends what there is")

	request := <-arrived
	require.Equal(t, "/own/metrics", request.URL.Path)
	require.Equal(t, awkward, request.Header.Get("Authorization"))
	require.Equal(t, "application/x-protobuf", request.Header.Get("Content-Type"))
}
