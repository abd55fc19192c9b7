package control

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/apiv1"
)

// Redacted stands for a secret in what the API answers; sent back, it keeps what is stored.
const Redacted = "[redacted]"

const (
	// defaultHeartbeat is the interval of an offer that does not say: without one, heartbeats would end (OpAMP,
	// "OpAMPConnectionSettings.heartbeat_interval_seconds").
	defaultHeartbeat = 30 * time.Second
	maxHeartbeat     = time.Hour
	// toSelf as an endpoint of own metrics is this server.
	toSelf = "self"
)

// destinations are the parts that are destinations, by the name they have in errors.
func destinations(o *apiv1.ConnectionOffer) map[string]*apiv1.Destination {
	all := map[string]*apiv1.Destination{"own_metrics": o.OwnMetrics, "own_traces": o.OwnTraces, "own_logs": o.OwnLogs}
	for name, d := range o.Other {
		all["other."+name] = &d
	}
	maps.DeleteFunc(all, func(_ string, d *apiv1.Destination) bool { return d == nil })
	return all
}

// validateConnection returns all errors at once.
func validateConnection(v *apiv1.Connection, records bool) error {
	var errs []error
	if v.OpAMP == nil && len(destinations(&v.ConnectionOffer)) == 0 {
		errs = append(errs, errors.New("nothing is offered: give opamp, own_metrics, own_traces, own_logs or other"))
	}
	if s := v.OpAMP; s != nil {
		if s.Endpoint != "" {
			errs = append(errs, validateURL("opamp.endpoint", s.Endpoint, "ws", "wss", "http", "https"))
		}
		if d, err := heartbeat(s); err != nil || d < time.Second || d > maxHeartbeat {
			errs = append(errs, fmt.Errorf("opamp.heartbeat_interval: want a duration from 1s to %s", maxHeartbeat))
		}
		if errs = append(errs, validateHeaders("opamp", s.Headers)); len(s.Headers) > 0 && s.Endpoint == "" {
			errs = append(errs, errors.New("opamp.headers: only with an endpoint; for a new credential of this server use rotate-credential"))
		}
	}
	for name, d := range destinations(&v.ConnectionOffer) {
		switch {
		case d.Endpoint == toSelf && name == "own_metrics" && records:
		case d.Endpoint == toSelf:
			errs = append(errs, fmt.Errorf("%s.endpoint: only own_metrics may go to this server", name))
		case strings.HasPrefix(name, "other."):
			if d.Endpoint == "" {
				errs = append(errs, fmt.Errorf("%s.endpoint is missing", name))
			}
		default:
			errs = append(errs, validateURL(name+".endpoint", d.Endpoint, "http", "https"))
		}
		errs = append(errs, validateHeaders(name, d.Headers))
	}
	return errors.Join(errs...)
}

func validateURL(what, text string, schemes ...string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%s: want a URL with a host and without credentials", what)
	}
	for _, s := range schemes {
		if u.Scheme == s {
			return nil
		}
	}
	return fmt.Errorf("%s: the scheme must be one of %s", what, strings.Join(schemes, ", "))
}

func validateHeaders(what string, headers map[string]string) error {
	for k, v := range headers {
		if k == "" || strings.ContainsAny(k, " :\r\n") || strings.ContainsAny(v, "\r\n") {
			return fmt.Errorf("%s.headers: %q is no header", what, k)
		}
	}
	return nil
}

func heartbeat(s *apiv1.OpAMPSettings) (time.Duration, error) {
	if s.HeartbeatInterval == "" {
		return defaultHeartbeat, nil
	}
	return time.ParseDuration(s.HeartbeatInterval)
}

// restoreSecrets puts what is stored in the place of what was redacted, if it goes where it went before: who may not see a secret must
// not be able to have it sent to himself.
func restoreSecrets(v, before *apiv1.Connection) error {
	var errs []error
	restore := func(what string, headers, stored map[string]string, moved bool) {
		for k, value := range headers {
			old, found := stored[k]
			switch {
			case value != Redacted:
			case !found:
				errs = append(errs, fmt.Errorf("%s.headers.%s: %s stands for a value that is stored, and none is", what, k, Redacted))
			case moved:
				errs = append(errs, fmt.Errorf("%s.headers.%s: the endpoint is another one: give the value again", what, k))
			default:
				headers[k] = old
			}
		}
	}
	if v.OpAMP != nil {
		stored := &apiv1.OpAMPSettings{}
		if before.OpAMP != nil {
			stored = before.OpAMP
		}
		restore("opamp", v.OpAMP.Headers, stored.Headers, stored.Endpoint != v.OpAMP.Endpoint || stored.CA != v.OpAMP.CA)
	}
	old := destinations(&before.ConnectionOffer)
	for name, d := range destinations(&v.ConnectionOffer) {
		stored := &apiv1.Destination{}
		if old[name] != nil {
			stored = old[name]
		}
		restore(name, d.Headers, stored.Headers, stored.Endpoint != d.Endpoint || stored.CA != d.CA)
	}
	return errors.Join(errs...)
}

// merged is what all wishes for an agent come to: of each part the most important one.
func merged(wishes []wish[apiv1.Connection], attributes map[string]string) apiv1.ConnectionOffer {
	var out apiv1.ConnectionOffer
	take := func(into **apiv1.Destination, from *apiv1.Destination) {
		if from != nil {
			*into = from
		}
	}
	for _, w := range wishes {
		if !w.selector.Matches(attributes) {
			continue
		}
		v := &w.value
		if v.OpAMP != nil {
			out.OpAMP = v.OpAMP
		}
		take(&out.OwnMetrics, v.OwnMetrics)
		take(&out.OwnTraces, v.OwnTraces)
		take(&out.OwnLogs, v.OwnLogs)
		for name, d := range v.Other {
			if out.Other == nil {
				out.Other = map[string]apiv1.Destination{}
			}
			out.Other[name] = d
		}
	}
	return out
}

// telemetrySettings is a destination of own telemetry as it is sent.
func telemetrySettings(d *apiv1.Destination) *protobufs.TelemetryConnectionSettings {
	return &protobufs.TelemetryConnectionSettings{DestinationEndpoint: d.Endpoint, Headers: headers(d.Headers), Tls: tlsSettings(d.CA)}
}

func headers(m map[string]string) *protobufs.Headers {
	if len(m) == 0 {
		return nil
	}
	out := &protobufs.Headers{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out.Headers = append(out.Headers, &protobufs.Header{Key: k, Value: m[k]})
	}
	return out
}

func tlsSettings(ca string) *protobufs.TLSConnectionSettings {
	if ca == "" {
		return nil
	}
	return &protobufs.TLSConnectionSettings{CaPemContents: ca}
}
