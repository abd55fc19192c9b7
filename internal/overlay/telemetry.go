package overlay

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// metricsInterval is how often own metrics are sent, in milliseconds (OpAMP, "Own Telemetry Reporting").
const metricsInterval = 10_000

// TelemetryOffers are the destinations for the Collector's own telemetry that a server has offered (ConnectionSettingsOffers,
// own_metrics, own_traces, own_logs). Nil, or an empty endpoint, means that this signal goes nowhere but where the local
// configuration sends it.
type TelemetryOffers struct {
	Metrics, Traces, Logs *protobufs.TelemetryConnectionSettings
	// AllowHTTP accepts http:// endpoints on other hosts; on loopback they always are.
	AllowHTTP bool
}

// signal is one of the three, and how its exporter is written in service::telemetry.
type signal struct {
	name, list, level string
	offer             *protobufs.TelemetryConnectionSettings
	defaults          []any
	wrap              func(exporter map[string]any) map[string]any
}

func (o TelemetryOffers) signals() []signal {
	batch := func(exporter map[string]any) map[string]any {
		return map[string]any{"batch": map[string]any{"exporter": exporter}}
	}
	// What the Collector has when nothing is configured (otelconftelemetry's default configuration).
	prometheus := map[string]any{"pull": map[string]any{"exporter": map[string]any{
		"prometheus": map[string]any{"host": "localhost", "port": 8888},
	}}}
	return []signal{
		{"metrics", "readers", "normal", o.Metrics, []any{prometheus}, func(exporter map[string]any) map[string]any {
			return map[string]any{"periodic": map[string]any{"interval": metricsInterval, "exporter": exporter}}
		}},
		{"traces", "processors", "basic", o.Traces, nil, batch},
		{"logs", "processors", "", o.Logs, nil, batch},
	}
}

// Telemetry returns the overlay that sends the Collector's own telemetry to the offered destinations, over OTLP/HTTP, beside
// where base sends it; nil when nothing is offered. base is the local configuration with its references unresolved; in
// ModeReplace it is nil. Certificates are files, since service::telemetry takes nothing else: files collects them.
//
// Lists are replaced when the overlay is merged, so it repeats those of base. Where base has turned a signal off
// (level: none), it is turned on for the offered destination alone: whether to report at all is decided by the agent's
// capabilities, and what base listed while it was off stays off.
//
// What an offer asks for and service::telemetry cannot express is an error, never left out.
func Telemetry(base map[string]any, offers TelemetryOffers, files *Files) (map[string]any, error) {
	base, err := tree(base)
	if err != nil {
		return nil, fmt.Errorf("base configuration: %w", err)
	}
	telemetry := map[string]any{}
	var errs []error
	for _, s := range offers.signals() {
		if s.offer.GetDestinationEndpoint() == "" {
			continue
		}
		section, err := s.overlay(base, offers.AllowHTTP, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("own %s: %w", s.name, err))
		}
		telemetry[s.name] = section
	}
	if len(errs) > 0 || len(telemetry) == 0 {
		return nil, errors.Join(errs...)
	}
	return map[string]any{"service": map[string]any{"telemetry": telemetry}}, nil
}

func (s signal) overlay(base map[string]any, allowHTTP bool, files *Files) (map[string]any, error) {
	otlp, err := otlpHTTP(s.offer, allowHTTP, files)
	if err != nil {
		return nil, err
	}
	offered := s.wrap(map[string]any{"otlp": otlp})
	section, err := descend(base, "service", "telemetry", s.name)
	if err != nil {
		return nil, err
	}
	if level, _ := section["level"].(string); s.level != "" && strings.EqualFold(level, "none") {
		return map[string]any{"level": s.level, s.list: []any{offered}}, nil
	}
	list := s.defaults
	if own, there := section[s.list]; there {
		var ok bool
		if list, ok = own.([]any); !ok && own != nil {
			return nil, fmt.Errorf("base configuration: service::telemetry::%s::%s is not a list written out in place", s.name, s.list)
		}
	}
	for _, element := range list {
		listHeaders(element)
	}
	return map[string]any{s.list: append(list, offered)}, nil
}

// descend follows keys through maps; what is absent or null is an empty map.
func descend(m map[string]any, keys ...string) (map[string]any, error) {
	for i, key := range keys {
		next, ok := m[key].(map[string]any)
		if !ok && m[key] != nil {
			return nil, fmt.Errorf("base configuration: %s is not a map written out in place", strings.Join(keys[:i+1], "::"))
		}
		m = next
	}
	return m, nil
}

// listHeaders rewrites headers of OTLP exporters from the older form, a map, to the list that the offered exporter has: the
// Collector reads all of a section in one form or the other.
func listHeaders(value any) {
	m, _ := value.(map[string]any)
	for key, element := range m {
		listHeaders(element)
		otlp, isMap := element.(map[string]any)
		headers, isOld := otlp["headers"].(map[string]any)
		if key != "otlp" || !isMap || !isOld {
			continue
		}
		var list []any
		for _, name := range sortedKeys(headers) {
			list = append(list, map[string]any{"name": name, "value": headers[name]})
		}
		otlp["headers"] = list
	}
}

func otlpHTTP(offer *protobufs.TelemetryConnectionSettings, allowHTTP bool, files *Files) (map[string]any, error) {
	secure, err := checkURL(offer.GetDestinationEndpoint(), allowHTTP)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkHeaders(offer.GetHeaders()), checkTLS(offer.GetTls()), checkCertificate(offer.GetCertificate()), inexpressible(offer)); err != nil {
		return nil, err
	}
	otlp := map[string]any{"protocol": "http/protobuf", "endpoint": escape(offer.GetDestinationEndpoint())}
	var headers []any
	for _, h := range offer.GetHeaders().GetHeaders() {
		headers = append(headers, map[string]any{"name": escape(h.GetKey()), "value": escape(h.GetValue())})
	}
	if headers != nil {
		otlp["headers"] = headers
	}
	pems := map[string][]byte{"certificate": []byte(offer.GetTls().GetCaPemContents())}
	if c := offer.GetCertificate(); c != nil {
		pems["client_certificate"], pems["client_key"] = c.GetCert(), c.GetPrivateKey()
	}
	for key, content := range pems {
		if len(content) == 0 {
			continue
		}
		if !secure {
			return nil, fmt.Errorf("%s: the endpoint is not https", key)
		}
		if otlp[key], err = files.add(content); err != nil {
			return nil, err
		}
	}
	return otlp, nil
}

// checkURL accepts the URLs that the exporter would use exactly as they are; it would leave out user, query and fragment.
func checkURL(endpoint string, allowHTTP bool) (secure bool, err error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false, errors.New("the endpoint is not a URL") // the library's error repeats it, and it may hold a password
	}
	switch {
	case !strings.HasPrefix(endpoint, "https://") && !strings.HasPrefix(endpoint, "http://"):
		return false, errors.New("the endpoint is not an http or https URL")
	case u.Hostname() == "":
		return false, errors.New("the endpoint has no host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(endpoint, "#"):
		return false, errors.New("the endpoint has more than scheme, host, port and path")
	case u.RawPath != "" || strings.TrimSpace(u.Path) != u.Path:
		return false, errors.New("the endpoint's path cannot be sent as it is written")
	case u.Scheme == "http" && !allowHTTP && !isLoopback(u.Hostname()):
		return false, fmt.Errorf("plain http to %s is not accepted, only to this host", u.Host)
	}
	return u.Scheme == "https", nil
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// inexpressible reports what service::telemetry has no setting for.
func inexpressible(offer *protobufs.TelemetryConnectionSettings) error {
	t := offer.GetTls()
	switch {
	case hasProxy(offer.GetProxy()):
		return errors.New("proxy: the Collector cannot send its own telemetry through a proxy of its own")
	case t.GetMinVersion() == "1.3", t.GetMaxVersion() == "1.2", len(t.GetCipherSuites()) > 0:
		return errors.New("tls: the Collector's own telemetry has no setting for versions and cipher suites")
	case t.GetIncludeSystemCaCertsPool() && t.GetCaPemContents() != "":
		return errors.New("tls: the Collector's own telemetry trusts either the offered CA or the system's, not both")
	}
	return nil
}
