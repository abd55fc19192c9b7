package inventory

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTableRoundTrip(t *testing.T) {
	t.Parallel()
	want := Inventory{
		"receivers":  {{Name: "otlp", Module: "example.com/otlp v1.0.0", Stability: "Stable: logs, metrics, traces"}},
		"extensions": {{Name: "opamp", Module: "example.com/opamp v0.0.0", Stability: "Development"}},
		"providers":  {{Name: "env", Module: "example.com/env v1.0.0"}},
	}
	var b bytes.Buffer
	require.NoError(t, Table{Inventory: want, Bytes: 12345678, Adds: map[string]map[string]int64{"receivers": {"otlp": 1_500_000}}}.Write(&b))
	require.Contains(t, b.String(), "| 1.50 MB |")
	got, err := ReadTable(&b)
	require.NoError(t, err)
	require.Equal(t, int64(12345678), got.Bytes)
	require.Equal(t, want, got.Inventory)
}

func TestReadTableWithoutSize(t *testing.T) {
	t.Parallel()
	_, err := ReadTable(strings.NewReader("# nothing\n"))
	require.ErrorContains(t, err, "no size")
}

func TestRead(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "otelcol")
	require.NoError(t, os.WriteFile(binary, []byte(`#!/bin/sh
cat <<'END'
buildinfo: {command: x}
receivers:
  - {name: b, module: m2 v1, stability: {logs: Beta, metrics: Stable, traces: Undefined}}
  - {name: a, module: m1 v1, stability: {logs: Alpha}}
extensions:
  - {name: e, module: m3 v1, stability: {extension: Beta}}
providers:
  - {scheme: env, module: m4 v1}
END
`), 0o700))
	inv, err := Read(t.Context(), binary)
	require.NoError(t, err)
	require.Equal(t, Inventory{
		"receivers":  {{"a", "m1 v1", "Alpha: logs"}, {"b", "m2 v1", "Stable: metrics; Beta: logs"}},
		"extensions": {{"e", "m3 v1", "Beta"}},
		"providers":  {{"env", "m4 v1", ""}},
	}, inv)

	_, err = Read(t.Context(), "/does/not/exist")
	require.ErrorContains(t, err, "/does/not/exist")
}
