package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const source = `import (
	otlpreceiver "example.com/otlpreceiver"
	ourreceiver "example.com/our/ourreceiver"
	ourextension "example.com/our/ourextension"
)
	f(
		otlpreceiver.NewFactory(),
		ourreceiver.NewFactory(),
		ourextension.NewFactory(),
	)
	m{
		otlpreceiver.NewFactory().Type(): "example.com/otlpreceiver v1.0.0",
		ourreceiver.NewFactory().Type(): "example.com/our v0.0.0",
		ourextension.NewFactory().Type(): "example.com/our v0.0.0",
	}
`

func TestRemove(t *testing.T) {
	t.Parallel()
	got := remove(source, "receivers", "example.com/otlpreceiver v1.0.0")
	require.NotContains(t, got, "otlpreceiver")
	require.Contains(t, got, "ourreceiver")

	got = remove(source, "extensions", "example.com/our v0.0.0")
	require.NotContains(t, got, "ourextension")
	require.Contains(t, got, "ourreceiver")

	require.Equal(t, source, remove(source, "receivers", "example.com/other v1.0.0"))
}
