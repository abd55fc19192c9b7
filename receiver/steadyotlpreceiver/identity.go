package steadyotlpreceiver

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"reflect"
	"slices"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configmiddleware"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/otel"
)

// The paths of the inner receiver: it has those of the default configuration, and requests are sent to them.
const (
	tracesPath   = "/v1/traces"
	metricsPath  = "/v1/metrics"
	logsPath     = "/v1/logs"
	profilesPath = "/v1development/profiles"
)

var (
	hookType   = component.MustNewType("collie_steady")
	grpcHookID = component.NewIDWithName(hookType, "grpc")
	httpHookID = component.NewIDWithName(hookType, "http")
)

// identity is all that an inner receiver cannot change while it runs. It is compared deeply, secrets and fields that the
// Collector may add included, so it is kept in memory as it is and never printed.
type identity struct {
	id          component.ID
	cfg         otlpreceiver.Config
	files       [sha256.Size]byte // what TLS reads once
	propagators []string          // of trace contexts: read once as well
	opaque      bool              // never the same
}

// identify puts our hooks in place of everything that can be bound late: authenticators, middlewares, paths.
func identify(r *steadyReceiver, extensions map[component.ID]component.Component) identity {
	who := identity{id: r.set.ID, cfg: *r.cfg, propagators: otel.GetTextMapPropagator().Fields()}
	slices.Sort(who.propagators) // they come in any order
	if g := who.cfg.Protocols.GRPC.Get(); g != nil {
		_, known := limiters(g.Middlewares, extensions)
		middlewares := []configmiddleware.Config{{ID: grpcHookID}}
		if !known {
			middlewares = append(middlewares, g.Middlewares...)
			who.opaque = true
		}
		g.Middlewares = middlewares
		if g.Auth.HasValue() {
			g.Auth.Get().AuthenticatorID = grpcHookID
		}
	}
	if h := who.cfg.Protocols.HTTP.Get(); h != nil {
		h.TracesURLPath, h.MetricsURLPath, h.LogsURLPath = tracesPath, metricsPath, logsPath
		h.ServerConfig.Middlewares = []configmiddleware.Config{{ID: httpHookID}}
		if h.ServerConfig.Auth.HasValue() {
			h.ServerConfig.Auth.Get().Config.AuthenticatorID = httpHookID
		}
	}
	who.files = who.readFiles()
	return who
}

// is says whether the inner receiver can go on as want.
func (in *inner) is(want identity) bool {
	return !in.broken.Load() && !want.opaque && reflect.DeepEqual(in.identity, want)
}

func (who *identity) tls() []*configtls.ServerConfig {
	var all []*configtls.ServerConfig
	if g := who.cfg.Protocols.GRPC.Get(); g != nil && g.TLS.HasValue() {
		all = append(all, g.TLS.Get())
	}
	if h := who.cfg.Protocols.HTTP.Get(); h != nil && h.ServerConfig.TLS.HasValue() {
		all = append(all, h.ServerConfig.TLS.Get())
	}
	return all
}

// readFiles sums up the files that the inner receiver will not read again by itself.
func (who *identity) readFiles() [sha256.Size]byte {
	sum := sha256.New()
	for _, t := range who.tls() {
		paths := []string{t.CAFile}
		if t.ReloadInterval == 0 {
			paths = append(paths, t.CertFile, t.KeyFile)
		}
		if !t.ReloadClientCAFile {
			paths = append(paths, t.ClientCAFile)
		}
		for _, path := range paths {
			content, _ := os.ReadFile(path) // what cannot be read fails when it is needed
			one := sha256.Sum256(content)
			sum.Write(one[:])
		}
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// checkTLS fails where the start of the inner receiver would, but before it has opened sockets: it would leave one behind.
func (who *identity) checkTLS(ctx context.Context) error {
	for _, t := range who.tls() {
		if _, err := t.LoadTLSConfig(ctx); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	return nil
}
