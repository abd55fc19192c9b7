package steadyotlpreceiver

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
)

func TestIdentity(t *testing.T) {
	before := otel.GetTextMapPropagator()
	defer otel.SetTextMapPropagator(before)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	identity := func(id, config string) *inner {
		s := tracesTo(config)
		s.id = id
		return &inner{identity: identify(create(t, newHost(nil), s).receivers[0].(*steadyReceiver), nil)}
	}
	base := `{protocols: {grpc: {tls: {cert_pem: a, key_pem: b}}}}`
	for range 50 {
		require.True(t, identity("", base).is(identity("", base).identity))
	}
	for name, other := range map[string]*inner{
		"id":         identity("other", base),
		"secret":     identity("", `{protocols: {grpc: {tls: {cert_pem: a, key_pem: c}}}}`),
		"header":     identity("", `{protocols: {grpc: {tls: {cert_pem: a, key_pem: b}}, http: }}`),
		"auth":       identity("", `{protocols: {grpc: {auth: {authenticator: x}, tls: {cert_pem: a, key_pem: b}}}}`),
		"middleware": identity("", `{protocols: {grpc: {middlewares: [{id: x}], tls: {cert_pem: a, key_pem: b}}}}`),
	} {
		require.False(t, identity("", base).is(other.identity), name)
	}
	otel.SetTextMapPropagator(propagation.TraceContext{})
	other := identity("", base)
	otel.SetTextMapPropagator(propagation.Baggage{})
	require.False(t, identity("", base).is(other.identity))
}
