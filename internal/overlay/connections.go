package overlay

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// protocols are the exporter types whose settings are known here, each under its two names. Others are not guessed at: their
// endpoint may have another name or shape.
var protocols = map[string]string{"otlp": "grpc", "otlp_grpc": "grpc", "otlphttp": "http", "otlp_http": "http"}

// Connections returns the overlay for settings that a server has offered for exporters (ConnectionSettingsOffers,
// other_connections), each named by the id that the exporter has in merged, or by the same id with the type's other name.
// What an offer leaves out stays as it is, a client certificate too (the specification says to drop it; it also says that
// this message is a partial update, and dropping a locally configured one would cut the exporter off).
//
// unknown, sorted, is what had no effect: names that are no exporter's or that of a type without known settings, and single
// other_settings, which have no meaning here ("otlp/x: other_settings::key"). A setting that cannot be honoured is an error,
// and then there is no overlay.
func Connections(merged map[string]any, offers map[string]*protobufs.OtherConnectionSettings) (overlay map[string]any, unknown []string, err error) {
	merged, err = tree(merged)
	if err != nil {
		return nil, nil, err
	}
	declared, _ := merged["exporters"].(map[string]any)
	exporters := map[string]any{}
	var errs []error
	for _, name := range sortedKeys(offers) {
		key, protocol := findExporter(declared, name)
		if protocol == "" {
			unknown = append(unknown, name)
			continue
		}
		for _, setting := range sortedKeys(offers[name].GetOtherSettings()) {
			unknown = append(unknown, name+": other_settings::"+setting)
		}
		settings, err := exporterOverlay(declared[key], protocol, offers[name])
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("exporters::%s: %w", name, err))
		case exporters[key] != nil:
			errs = append(errs, fmt.Errorf("exporters::%s: settings are offered under both its names", key))
		case len(settings) > 0:
			exporters[key] = settings
		}
	}
	slices.Sort(unknown)
	if len(errs) > 0 || len(exporters) == 0 {
		return nil, unknown, errors.Join(errs...)
	}
	return map[string]any{"exporters": exporters}, unknown, nil
}

// findExporter returns the key of the exporter that a name means, and its protocol, "" when there is none known.
func findExporter(declared map[string]any, name string) (key, protocol string) {
	id, err := parseID(name)
	if err != nil {
		return "", ""
	}
	protocol = protocols[id.Type().String()]
	if _, there := declared[name]; there {
		return name, protocol
	}
	for _, key := range sortedKeys(declared) {
		other, err := parseID(strings.TrimSpace(key))
		if err == nil && protocols[other.Type().String()] == protocol && other.Name() == id.Name() {
			return key, protocol
		}
	}
	return "", ""
}

func exporterOverlay(config any, protocol string, offer *protobufs.OtherConnectionSettings) (map[string]any, error) {
	current, ok := config.(map[string]any)
	if !ok && config != nil {
		return nil, errors.New("its configuration is not a map written out in place")
	}
	if err := errors.Join(checkHeaders(offer.GetHeaders()), checkTLS(offer.GetTls()), checkCertificate(offer.GetCertificate())); err != nil {
		return nil, err
	}
	out := map[string]any{}
	headers, err := mergedHeaders(current["headers"], protocol, offer.GetHeaders())
	if err != nil {
		return nil, err
	}
	if headers != nil {
		out["headers"] = headers
	}
	tls, err := tlsOverlay(current["tls"], offer)
	if err != nil {
		return nil, err
	}
	if len(tls) > 0 {
		out["tls"] = tls
	}
	if endpoint := offer.GetDestinationEndpoint(); endpoint != "" {
		if err := checkEndpoint(current, protocol, endpoint); err != nil {
			return nil, err
		}
		out["endpoint"] = escape(endpoint)
	}
	if hasProxy(offer.GetProxy()) {
		if err := checkProxy(protocol, offer.GetProxy()); err != nil {
			return nil, err
		}
		out["proxy_url"] = escape(offer.GetProxy().GetUrl())
	}
	return out, nil
}

// mergedHeaders returns what goes over the exporter's headers: a map over a map, a list over a list. A reference in their
// place is replaced, since what is behind it is not known here (the shipped configurations have one). A header that is there
// in another case keeps its spelling, or both would be sent. Keys of maps are not escaped: the Collector resolves values only.
func mergedHeaders(current any, protocol string, offered *protobufs.Headers) (any, error) {
	if len(offered.GetHeaders()) == 0 {
		return nil, nil
	}
	if protocol == "grpc" {
		for _, h := range offered.GetHeaders() {
			if strings.ContainsFunc(h.GetValue(), func(r rune) bool { return r < ' ' || r > '~' }) {
				return nil, fmt.Errorf("header %s: gRPC takes printable ASCII only", h.GetKey())
			}
		}
	}
	switch headers := current.(type) {
	default:
		there, _ := headers.(map[string]any)
		out := map[string]any{}
		for _, h := range offered.GetHeaders() {
			spellings := slices.DeleteFunc(sortedKeys(there), func(key string) bool { return !strings.EqualFold(key, h.GetKey()) })
			if len(spellings) == 0 {
				spellings = []string{h.GetKey()}
			}
			for _, key := range spellings {
				out[key] = escape(h.GetValue())
			}
		}
		return out, nil
	case []any:
		out := slices.DeleteFunc(headers, func(element any) bool {
			pair, _ := element.(map[string]any)
			name, _ := pair["name"].(string)
			return slices.ContainsFunc(offered.GetHeaders(), func(h *protobufs.Header) bool { return strings.EqualFold(name, h.GetKey()) })
		})
		for _, h := range offered.GetHeaders() {
			out = append(out, map[string]any{"name": escape(h.GetKey()), "value": escape(h.GetValue())})
		}
		return out, nil
	}
}

// tlsOverlay returns what goes over the exporter's tls. A file and the same thing in PEM exclude each other, so an offered
// PEM empties the file; and whoever offers TLS wants it used.
func tlsOverlay(current any, offer *protobufs.OtherConnectionSettings) (map[string]any, error) {
	out := map[string]any{}
	t := offer.GetTls()
	set := func(key, value string) {
		if value != "" {
			out[key] = escape(value)
		}
	}
	set("ca_pem", t.GetCaPemContents())
	set("cert_pem", string(offer.GetCertificate().GetCert()))
	set("key_pem", string(offer.GetCertificate().GetPrivateKey()))
	set("min_version", t.GetMinVersion())
	set("max_version", t.GetMaxVersion())
	if t.GetCaPemContents() != "" || t.GetIncludeSystemCaCertsPool() {
		out["include_system_ca_certs_pool"] = t.GetIncludeSystemCaCertsPool()
	}
	if len(t.GetCipherSuites()) > 0 {
		var suites []any
		for _, suite := range t.GetCipherSuites() {
			suites = append(suites, suite)
		}
		out["cipher_suites"] = suites
	}
	if len(out) == 0 {
		return nil, nil
	}
	there, ok := current.(map[string]any)
	if !ok && current != nil {
		return nil, errors.New("its tls is not a map written out in place")
	}
	for pem, file := range map[string]string{"ca_pem": "ca_file", "cert_pem": "cert_file", "key_pem": "key_file"} {
		if _, both := there[file]; both && out[pem] != nil {
			out[file] = ""
		}
	}
	if there["insecure"] != nil {
		out["insecure"] = false
	}
	return out, nil
}

func checkEndpoint(current map[string]any, protocol, endpoint string) error {
	if strings.ContainsFunc(endpoint, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the endpoint has bytes that an endpoint cannot have")
	}
	if protocol == "grpc" {
		return nil
	}
	for _, key := range []string{"traces_endpoint", "metrics_endpoint", "logs_endpoint", "profiles_endpoint"} {
		if current[key] != nil && current[key] != "" {
			return fmt.Errorf("it has a %s, which an offered endpoint would not change", key)
		}
	}
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("the endpoint is not an http or https URL")
	}
	return nil
}

func checkProxy(protocol string, proxy *protobufs.ProxyConnectionSettings) error {
	if protocol != "http" {
		return errors.New("proxy: only HTTP exporters can be told one")
	}
	if len(proxy.GetConnectHeaders().GetHeaders()) > 0 {
		return errors.New("proxy: the exporter has no setting for connect_headers")
	}
	if u, err := url.Parse(proxy.GetUrl()); err != nil || u.Host == "" {
		return errors.New("proxy: its url is not a URL")
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
