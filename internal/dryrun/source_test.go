package dryrun

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
)

func TestURIs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"none", nil, nil},
		{"one argument", []string{"--config=a.yaml"}, []string{"a.yaml"}},
		{"two arguments", []string{"--config", "a.yaml"}, []string{"a.yaml"}},
		{"one dash", []string{"-config", "a.yaml", "-config=b.yaml"}, []string{"a.yaml", "b.yaml"}},
		{"in order", []string{"--config=a", "--config", "b", "-config", "c"}, []string{"a", "b", "c"}},
		{"equals sign in the value", []string{"--config=yaml:a=b", "--config", "env:X=Y"}, []string{"yaml:a=b", "env:X=Y"}},
		{"set", []string{"--set=a.b=c"}, []string{"yaml:a::b: c"}},
		{"set in two arguments", []string{"--set", "a.b=c"}, []string{"yaml:a::b: c"}},
		{"set with spaces and equals signs", []string{"--set", " a.b = c=d "}, []string{"yaml:a::b: c=d"}},
		{"set with dots in the value", []string{"--set=a.b=host.name:1.5"}, []string{"yaml:a::b: host.name:1.5"}},
		{"set without a value", []string{"--set=a.b"}, nil},
		{"set after all of config", []string{"--set=a=1", "--config=a", "--set", "b=2", "--config", "b"}, []string{"a", "b", "yaml:a: 1", "yaml:b: 2"}},
		{"other flags", []string{"--feature-gates=config", "--configs=x", "--feature-gates", "+x", "--config=a"}, []string{"a"}},
		{"not flags", []string{"config", "validate", "set=a=b", "config=a"}, nil},
		{"a value that looks like a flag", []string{"--config", "--set"}, []string{"--set"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, URIs(tt.args))
		})
	}
}

func TestFactoriesOfAnotherHost(t *testing.T) {
	t.Parallel()
	_, err := Factories(componenttest.NewNopHost())
	require.ErrorContains(t, err, "does not tell its components")
}
