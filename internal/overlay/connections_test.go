package overlay

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configgrpc"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/confmap"

	"github.com/collie-otel/collie/configs"
)

const exporters = `
exporters:
  otlp_grpc/backend: {endpoint: "old:4317", tls: {insecure: true}, headers: {authorization: "${env:TOKEN}", kept: "1"}}
  otlp_http: {endpoint: "https://old:4318", tls: {ca_file: /ca.pem, cert_file: /cert.pem, key_file: /key.pem, min_version: "1.2"}}
  otlphttp/list: {endpoint: "https://old:4318", headers: [{name: authorization, value: old}, {name: kept, value: "1"}]}
  otlp/null:
  otlp/both: {endpoint: "old:4317"}
  otlp_grpc/both: {endpoint: "old:4317"}
  otlp_http/signals: {traces_endpoint: "https://old:4318/v1/traces"}
  otlp/reference: ${file:x}
  otlp/tls: {tls: "${file:x}", headers: "${file:x}"}
  load_balancing: {protocol: {otlp: {}}}
  debug:
`

type offers = map[string]*protobufs.OtherConnectionSettings

func to(endpoint string) *protobufs.OtherConnectionSettings {
	return &protobufs.OtherConnectionSettings{DestinationEndpoint: endpoint}
}

// connected is the configuration with the overlay, resolved as the Collector does.
func connected(t testing.TB, offered offers, asYAML bool) *confmap.Conf {
	t.Helper()
	got, err := Merge(Input{Base: fromYAML(t, exporters), Connections: func(m map[string]any) (map[string]any, error) {
		overlay, unknown, err := Connections(m, offered)
		require.Empty(t, unknown)
		return overlay, err
	}})
	require.NoError(t, err)
	delete(got["exporters"].(map[string]any), "otlp/reference")
	delete(got["exporters"].(map[string]any), "otlp/tls")
	return resolve(t, got, asYAML)
}

func unmarshal[T any](t testing.TB, conf *confmap.Conf, exporter string, into T) T {
	t.Helper()
	sub, err := conf.Sub("exporters::" + exporter)
	require.NoError(t, err)
	require.NoError(t, sub.Unmarshal(&into))
	require.NoError(t, confmap.Validate(into))
	return into
}

// The structs that both OTLP exporters embed take the overlay, and every byte of it arrives there.
func TestConnectionsAreValidAndSurviveResolution(t *testing.T) {
	t.Setenv("TOKEN", "local")
	ca, _ := keyPair(t)
	certificate, key := keyPair(t)
	offer := func(endpoint string) *protobufs.OtherConnectionSettings {
		return &protobufs.OtherConnectionSettings{
			DestinationEndpoint: endpoint,
			Headers:             headers("Authorization", strings.TrimSuffix(awkward, "é"), "x-$$-$name", "new"),
			Tls: &protobufs.TLSConnectionSettings{
				CaPemContents: string(ca), IncludeSystemCaCertsPool: true, MinVersion: "1.3", MaxVersion: "1.3",
				CipherSuites: []string{"TLS_AES_128_GCM_SHA256"},
			},
			Certificate: &protobufs.TLSCertificate{Cert: certificate, PrivateKey: key},
		}
	}
	grpc, http := offer("new$:4317"), offer("https://new:4318/$${env:TOKEN}")
	http.Proxy = &protobufs.ProxyConnectionSettings{Url: "http://$user:$$pass@proxy:3128"}
	for _, asYAML := range []bool{false, true} {
		conf := connected(t, offers{"otlp_grpc/backend": grpc, "otlphttp": http}, asYAML)
		g := unmarshal(t, conf, "otlp_grpc/backend", configgrpc.ClientConfig{})
		h := unmarshal(t, conf, "otlp_http", confighttp.ClientConfig{})
		require.Equal(t, grpc.DestinationEndpoint, g.Endpoint)
		require.Equal(t, http.DestinationEndpoint, h.Endpoint)
		require.Equal(t, http.Proxy.Url, h.ProxyURL)
		require.False(t, g.TLS.Insecure, "TLS is offered, so it is used")

		for name, value := range map[string]string{"authorization": grpc.Headers.Headers[0].Value, "x-$$-$name": "new", "kept": "1"} {
			got, ok := g.Headers.Get(name)
			require.True(t, ok, name)
			require.Equal(t, value, string(got))
		}
		require.Len(t, g.Headers, 3, "a header in another case is replaced, not added")
		require.Len(t, h.Headers, 2)

		require.Equal(t, g.TLS.Config, h.TLS.Config, "the files that were there are replaced")
		require.Equal(t, string(ca), string(g.TLS.CAPem))
		require.Equal(t, string(certificate), string(g.TLS.CertPem))
		require.Equal(t, string(key), string(g.TLS.KeyPem))
		require.True(t, g.TLS.IncludeSystemCACertsPool)
		require.Equal(t, []string{"1.3", "1.3", "TLS_AES_128_GCM_SHA256"}, append([]string{g.TLS.MinVersion, g.TLS.MaxVersion}, g.TLS.CipherSuites...))
		tls, err := g.TLS.LoadTLSConfig(t.Context())
		require.NoError(t, err)
		require.NotNil(t, tls)
	}
}

func TestConnectionsChangeOnlyWhatIsOffered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		offered offers
		want    string
	}{
		"an endpoint":                {offers{"otlp_grpc/backend": to("new:1")}, "exporters: {otlp_grpc/backend: {endpoint: 'new:1'}}"},
		"by the older name":          {offers{"otlp/backend": to("new:1")}, "exporters: {otlp_grpc/backend: {endpoint: 'new:1'}}"},
		"by the newer name":          {offers{"otlp_http/list": to("https://new")}, "exporters: {otlphttp/list: {endpoint: 'https://new'}}"},
		"the exact name first":       {offers{"otlp/both": to("a:1"), "otlp_grpc/both": to("b:1")}, "exporters: {otlp/both: {endpoint: 'a:1'}, otlp_grpc/both: {endpoint: 'b:1'}}"},
		"a null exporter":            {offers{"otlp/null": to("a:1")}, "exporters: {otlp/null: {endpoint: 'a:1'}}"},
		"headers in a list":          {offers{"otlphttp/list": {Headers: headers("Authorization", "new$")}}, "exporters: {otlphttp/list: {headers: [{name: kept, value: '1'}, {name: Authorization, value: new$$}]}}"},
		"a reference for headers":    {offers{"otlp/tls": {Headers: headers("a", "b")}}, "exporters: {otlp/tls: {headers: {a: b}}}"},
		"a version":                  {offers{"otlp_http": {Tls: &protobufs.TLSConnectionSettings{MinVersion: "1.3"}}}, "exporters: {otlp_http: {tls: {min_version: '1.3'}}}"},
		"nothing":                    {offers{"otlp_grpc/backend": to(""), "otlp_http": nil}, "{}"},
		"nothing for a reference":    {offers{"otlp/tls": to("a:1")}, "exporters: {otlp/tls: {endpoint: 'a:1'}}"},
		"an endpoint beside a proxy": {offers{"otlp_http": {DestinationEndpoint: "http://new", Proxy: &protobufs.ProxyConnectionSettings{Url: "socks5://p:1"}}}, "exporters: {otlp_http: {endpoint: 'http://new', proxy_url: 'socks5://p:1'}}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := fromYAML(t, exporters)
			before := toYAML(t, in)
			got, unknown, err := Connections(in, c.offered)
			require.NoError(t, err)
			require.Empty(t, unknown)
			want := fromYAML(t, c.want)
			if len(want) == 0 {
				require.Nil(t, got)
				return
			}
			require.Equal(t, want, got)
			spoil(got)
			require.Equal(t, before, toYAML(t, in))
		})
	}
}

// Whatever ships must be able to carry what is offered.
func TestShippedConfigurationsTakeOverlays(t *testing.T) {
	t.Parallel()
	ca, _ := keyPair(t)
	offer := &protobufs.OtherConnectionSettings{
		DestinationEndpoint: "https://new:4317", Headers: headers("a", "b"), Tls: &protobufs.TLSConnectionSettings{CaPemContents: string(ca)},
	}
	names, err := fs.Glob(configs.Files, "*.yaml")
	require.NoError(t, err)
	changed := 0
	for _, name := range append(names, "tiered/sampler.yaml") {
		text, err := configs.Files.ReadFile(name)
		require.NoError(t, err)
		base := fromYAML(t, string(text))
		if base["service"] == nil {
			continue // not a Collector's
		}
		overlay, err := Telemetry(base, TelemetryOffers{Metrics: destination("https://h"), Traces: destination("https://h"), Logs: destination("https://h")}, nil)
		require.NoError(t, err, name)
		offered := offers{}
		declared, _ := base["exporters"].(map[string]any)
		for exporter := range declared {
			offered[exporter] = offer
		}
		got, err := Merge(Input{Base: base, Telemetry: overlay, Connections: func(m map[string]any) (map[string]any, error) {
			overlay, unknown, err := Connections(m, offered)
			changed += len(offered) - len(unknown)
			return overlay, err
		}})
		require.NoError(t, err, name)
		telemetryConfig(t, resolve(t, got, true))
	}
	require.Greater(t, changed, 5)
}

func TestUnknownConnectionsAreReported(t *testing.T) {
	t.Parallel()
	offer := to("new:1")
	offer.OtherSettings = map[string]string{"b": "1", "a": "2"}
	got, unknown, err := Connections(fromYAML(t, exporters), offers{
		"otlp_grpc/backend": offer, "otlp_grpc/other": offer, "load_balancing": offer, "debug": offer, "backend": offer, " otlp_http": offer, "": offer,
	})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"exporters": map[string]any{"otlp_grpc/backend": map[string]any{"endpoint": "new:1"}}}, got)
	require.Equal(t, []string{
		"", " otlp_http", "backend", "debug", "load_balancing", "otlp_grpc/backend: other_settings::a", "otlp_grpc/backend: other_settings::b", "otlp_grpc/other",
	}, unknown)
}

func TestConnectionsRefuse(t *testing.T) {
	t.Parallel()
	certificate, _ := keyPair(t)
	tls := func(s *protobufs.TLSConnectionSettings) *protobufs.OtherConnectionSettings {
		return &protobufs.OtherConnectionSettings{Tls: s}
	}
	proxy := func(url string, h *protobufs.Headers) *protobufs.OtherConnectionSettings {
		return &protobufs.OtherConnectionSettings{Proxy: &protobufs.ProxyConnectionSettings{Url: url, ConnectHeaders: h}}
	}
	for name, c := range map[string]struct {
		offered offers
		want    string
	}{
		"no verification":       {offers{"otlp_http": tls(&protobufs.TLSConnectionSettings{InsecureSkipVerify: true})}, "exporters::otlp_http: tls: insecure_skip_verify"},
		"an old version":        {offers{"otlp_http": tls(&protobufs.TLSConnectionSettings{MaxVersion: "1.1"})}, "version"},
		"no CA":                 {offers{"otlp_http": tls(&protobufs.TLSConnectionSettings{CaPemContents: "x"})}, "has no certificate"},
		"no key":                {offers{"otlp_http": {Certificate: &protobufs.TLSCertificate{Cert: certificate}}}, "certificate: "},
		"a header's line break": {offers{"otlp_http": {Headers: headers("a", "b\n")}}, "header a: "},
		"a header over gRPC":    {offers{"otlp/null": {Headers: headers("a", "é")}}, "gRPC takes printable ASCII only"},
		"an endpoint's space":   {offers{"otlp/null": to("a b:1")}, "the endpoint has bytes"},
		"an endpoint's scheme":  {offers{"otlp_http": to("new:4318")}, "not an http or https URL"},
		"no host":               {offers{"otlp_http": to("https://")}, "not an http or https URL"},
		"endpoints per signal":  {offers{"otlp_http/signals": to("https://new")}, "it has a traces_endpoint"},
		"a proxy for gRPC":      {offers{"otlp/null": proxy("http://p", nil)}, "only HTTP exporters"},
		"a proxy's headers":     {offers{"otlp_http": proxy("http://p", headers("a", "b"))}, "connect_headers"},
		"a proxy without URL":   {offers{"otlp_http": proxy("p:1", nil)}, "its url is not a URL"},
		"a reference":           {offers{"otlp/reference": to("a:1")}, "its configuration is not a map"},
		"a reference for tls":   {offers{"otlp/tls": tls(&protobufs.TLSConnectionSettings{MinVersion: "1.3"})}, "its tls is not a map"},
		"one by both names":     {offers{"otlp/backend": to("a:1"), "otlp_grpc/backend": to("b:1")}, "under both its names"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, _, err := Connections(fromYAML(t, exporters), c.offered)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, got)
		})
	}
}
