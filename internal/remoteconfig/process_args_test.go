package remoteconfig

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStartsCollector(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"--config=opamp:/etc/c.yaml":                           true,
		"--config opamp:c.yaml --feature-gates=+x":             true,
		"--config=file:a.yaml --config=opamp:c.yaml --set=a=b": true,
		"validate --config=opamp:c.yaml":                       false,
		"print-config --config opamp:c.yaml":                   false,
		"--config=opamp:c.yaml validate":                       false,
		"components":                                           false,
		"--config=c.yaml":                                      false,
		"-test.run=X":                                          false,
		"":                                                     false,
	} {
		require.Equal(t, want, startsCollector(strings.Fields(line)), line)
	}
}
