package traffic

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/config/configtls"
)

const (
	// ProtocolGRPC is OTLP over gRPC.
	ProtocolGRPC = "grpc"
	// ProtocolHTTP is OTLP over HTTP with protobuf bodies.
	ProtocolHTTP = "http"

	defaultServices      = 5
	defaultSpansPerTrace = 10
	defaultBatchSize     = 100
	defaultWorkers       = 4
	defaultTimeout       = 5 * time.Second
)

// LoadConfig says what RunLoad sends, where to and how fast. The zero value of everything but Endpoints is usable.
type LoadConfig struct {
	// Endpoints are host:port each. Requests go to them in turn, so that the parts of one trace go to different endpoints;
	// a request that is sent again goes to the endpoint it went to before.
	Endpoints []string
	// Protocol is "grpc" (default) or "http".
	Protocol string
	// Rate is the number of spans per second over all workers; 0 is as fast as acknowledged. A server that was too slow for
	// a while is not punished with more than one second's worth of spans afterwards. At low rates requests carry fewer than
	// BatchSize spans, so that at least about ten of them are sent in a second.
	Rate float64
	// Duration ends the run; 0 runs until Traces are sent or the context ends. Traces that were begun are sent whole, and
	// with Retry requests that were not acknowledged yet are still sent again.
	Duration time.Duration
	// Traces ends the run after so many traces, each of them sent whole; 0 is no limit.
	Traces int
	// Services is the number of services a trace passes through, default 5, and never more than SpansPerTrace.
	Services int
	// SpansPerTrace are spread evenly over the services, default 10. All phases of one Run need the same value.
	SpansPerTrace int
	// BatchSize is the number of spans per request, default 100. A request carries the spans of one service of several
	// traces, as an SDK would send them.
	BatchSize int
	// Workers is the number of concurrent senders, default 4.
	Workers int
	// SlowRatio is the share of traces whose root takes 700 to 1500 ms; the others take 5 to 300 ms.
	SlowRatio float64
	// ErrorRatio is the share of traces that contain a span with status ERROR.
	ErrorRatio float64
	// Retry sends refused and failed requests again, whatever the code, after 50 ms to 1 s with jitter, until they are
	// acknowledged or the context ends. A partial success is never sent again.
	Retry bool
	// Timeout is per request, default 5 s.
	Timeout time.Duration
	// Reconnect is the longest wait between two attempts to connect over gRPC; 0 leaves it to grpc-go: 1 s, growing.
	Reconnect time.Duration
	// Headers are sent with every request.
	Headers map[string]string
	// Compression is "none" (default), "gzip", "snappy" or "zstd".
	Compression string
	// TLS is nil for plaintext.
	TLS *configtls.ClientConfig
	// FirstTrace is the number of the first trace: a later phase of the same Run continues here.
	FirstTrace int
	// Run is the run's id, 8 lower-case hex digits; random when empty. Trace ids follow from it and the trace's number.
	Run string
	// OnProgress is called about once a second, from one goroutine, when set.
	OnProgress func(Progress)
}

// ConfigError is one bad value. Field is the name of the command line's flag without dashes.
type ConfigError struct {
	Field   string
	Problem string
}

// Error says which field must be what.
func (e *ConfigError) Error() string { return e.Field + " " + e.Problem }

var runPattern = regexp.MustCompile(`^[0-9a-f]{8}$`)

// Validate reports all bad values at once, as joined *ConfigError. A zero stands for the default.
func (c *LoadConfig) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &ConfigError{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	if len(c.Endpoints) == 0 {
		bad("endpoint", "must name at least one host:port")
	}
	for _, endpoint := range c.Endpoints {
		if err := checkHostPort(endpoint); err != nil {
			bad("endpoint", "must be host:port, got %q: %v", endpoint, err)
		}
	}
	oneOf := func(field, value, want string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		bad(field, "must be %s, got %q", want, value)
	}
	oneOf("protocol", c.Protocol, "grpc or http", "", ProtocolGRPC, ProtocolHTTP)
	oneOf("compression", c.Compression, "none, gzip, snappy or zstd", "", "none", "gzip", "snappy", "zstd")
	if c.Run != "" && !runPattern.MatchString(c.Run) {
		bad("run", "must be 8 lower-case hex digits, got %q", c.Run)
	}
	c.validateNumbers(bad)
	return errors.Join(errs...)
}

func (c *LoadConfig) validateNumbers(bad func(field, format string, args ...any)) {
	for _, n := range []struct {
		field string
		value float64
	}{
		{"rate", c.Rate},
		{"duration", float64(c.Duration)},
		{"traces", float64(c.Traces)},
		{"services", float64(c.Services)},
		{"spans-per-trace", float64(c.SpansPerTrace)},
		{"batch-size", float64(c.BatchSize)},
		{"workers", float64(c.Workers)},
		{"timeout", float64(c.Timeout)},
		{"reconnect", float64(c.Reconnect)},
		{"first-trace", float64(c.FirstTrace)},
	} {
		if n.value < 0 || math.IsNaN(n.value) || math.IsInf(n.value, 0) {
			bad(n.field, "must be 0 or more")
		}
	}
	for _, r := range []struct {
		field string
		value float64
	}{{"slow-ratio", c.SlowRatio}, {"error-ratio", c.ErrorRatio}} {
		if !(r.value >= 0 && r.value <= 1) {
			bad(r.field, "must be from 0 to 1, got %v", r.value)
		}
	}
	filled := c.withDefaults()
	if limit := maxTraces(filled.SpansPerTrace); limit > 0 && c.FirstTrace+c.Traces > limit {
		bad("first-trace", "plus traces must stay below %d: sequence numbers have 32 bits", limit)
	}
}

// maxTraces is how many traces have sequence numbers that fit in 32 bits.
func maxTraces(spansPerTrace int) int {
	if spansPerTrace <= 0 {
		return 0
	}
	return (math.MaxUint32 + 1) / spansPerTrace
}

// withDefaults is the one place where defaults are filled in.
func (c *LoadConfig) withDefaults() LoadConfig {
	out := *c
	orDefault := func(p *int, value int) {
		if *p == 0 {
			*p = value
		}
	}
	orDefault(&out.Services, defaultServices)
	orDefault(&out.SpansPerTrace, defaultSpansPerTrace)
	orDefault(&out.BatchSize, defaultBatchSize)
	orDefault(&out.Workers, defaultWorkers)
	out.Services = min(out.Services, out.SpansPerTrace)
	if out.Timeout == 0 {
		out.Timeout = defaultTimeout
	}
	if out.Protocol == "" {
		out.Protocol = ProtocolGRPC
	}
	if out.Compression == "none" {
		out.Compression = ""
	}
	if out.Run == "" {
		out.Run = fmt.Sprintf("%08x", rand.Uint32())
	}
	return out
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if host == "" {
		return errors.New("the host is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the port must be a number from 1 to 65535")
	}
	return nil
}
