package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configtls"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// The gateway's TLS and authentication are switched on by environment, and then let nobody else in.
func TestGatewaySecurity(t *testing.T) {
	t.Parallel()
	cert, key := harness.SelfSigned(t)
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
				sink := harness.StartSink(t)
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
				harness.AwaitAll(t, sink, send(tc.accepted), 30*time.Second)
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
