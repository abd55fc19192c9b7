package policy

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// What the server offers for own metrics comes beside the readers in the file that is given to `opamp:`. Were they only in the
// configuration below it, an offer would put the Collector's default in their place, and scrapers would find another port.
func TestManagedConfigurationsRepeatTheListsBelowThem(t *testing.T) {
	t.Parallel()
	for managed, below := range map[string][]string{
		"managed-agent.yaml":   {"agent.yaml"},
		"managed-gateway.yaml": {"gateway.yaml", "single-gateway.yaml"},
	} {
		over := service(t, managed)
		require.NotEmpty(t, over.Telemetry.Metrics.Readers, managed)
		for _, base := range below {
			under := service(t, base)
			require.Equal(t, under.Telemetry.Metrics.Readers, over.Telemetry.Metrics.Readers, "%s over %s", managed, base)
			require.ElementsMatch(t, append(under.Extensions, "opamp"), over.Extensions, "%s over %s", managed, base)
		}
	}
}

// serviceLists are the lists of a service section that more than one file has.
type serviceLists struct {
	Extensions []string `yaml:"extensions"`
	Telemetry  struct {
		Metrics struct {
			Readers []any `yaml:"readers"`
		} `yaml:"metrics"`
	} `yaml:"telemetry"`
}

func service(t *testing.T, file string) serviceLists {
	t.Helper()
	var config struct {
		Service serviceLists `yaml:"service"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(t, "configs/"+file)), &config), file)
	return config.Service
}
