package overlay

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// exporterAliases knows one direction only, as a factory does.
func exporterAliases(kind, componentType string) []string {
	if kind != "exporters" {
		return nil
	}
	return map[string][]string{"otlp_grpc": {"otlp"}, "otlp_http": {"otlphttp"}}[componentType]
}

func TestPolicy(t *testing.T) {
	t.Parallel()
	denyGRPC := Policy{Denied: map[string][]string{"exporters": {"otlp_grpc"}}, Aliases: exporterAliases}
	denyOld := Policy{Denied: map[string][]string{"exporters": {"otlp/x"}}, Aliases: exporterAliases}
	allowOTLP := Policy{Allowed: map[string][]string{"receivers": {"otlp"}, "exporters": {"otlp", "debug/x"}}, Aliases: exporterAliases}
	nothing := Policy{Allowed: map[string][]string{"extensions": {}}}
	for name, c := range map[string]struct {
		policy Policy
		remote string
		want   []string // parts of the violations, in order; none is allowed
	}{
		"no policy":               {Policy{}, "receivers: ${env:X}\nexporters: {' a ': }", nil},
		"denied by type":          {denyGRPC, "exporters: {otlp_grpc: , otlp_grpc/x: , debug: }", []string{"exporters::otlp_grpc: denied", "exporters::otlp_grpc/x: denied"}},
		"denied by alias":         {denyGRPC, "exporters: {otlp: , otlp/x: }", []string{"exporters::otlp: denied", "exporters::otlp/x: denied"}},
		"another kind's alias":    {denyGRPC, "receivers: {otlp: }", nil},
		"denied by id":            {denyOld, "exporters: {otlp/x: , otlp/y: , otlp_grpc/x: , otlp_grpc: }", []string{"exporters::otlp/x: denied", "exporters::otlp_grpc/x: denied"}},
		"allowed":                 {allowOTLP, "receivers: {otlp: , otlp/2: }\nexporters: {otlp_grpc: , debug/x: }\nprocessors: {batch: }", nil},
		"not allowed":             {allowOTLP, "receivers: {nop: }\nexporters: {debug: , otlp_http: }", []string{"exporters::debug: not allowed", "exporters::otlp_http: not allowed", "receivers::nop: not allowed"}},
		"nothing is allowed":      {nothing, "extensions: {opamp: }", []string{"extensions::opamp: not allowed"}},
		"null declares nothing":   {nothing, "extensions:", nil},
		"a reference for a kind":  {denyGRPC, "exporters: ${file:x}", []string{"exporters: not a map"}},
		"a list for a kind":       {denyGRPC, "exporters: [otlp]", []string{"exporters: not a map"}},
		"the kind without limits": {denyGRPC, "receivers: ${file:x}", nil},
		"a reference for a key":   {denyGRPC, "exporters: {'${env:X}': , 'debug/${env:X}': }", []string{"malformed id", "malformed id"}},
		"a key with spaces":       {denyGRPC, "exporters: {' otlp': , 'otlp / x': }", []string{"spaces", "spaces"}},
		"a number for a key":      {denyGRPC, "exporters: {1: }", []string{"malformed id"}},
		"an empty key":            {denyGRPC, "exporters: {'': , 'otlp/': }", []string{"malformed id", "malformed id"}},
		"through a merge key":     {denyGRPC, "x: &x {otlp: }\nexporters: {<<: *x}", []string{"exporters::otlp: denied"}},
		"through a joined key":    {denyGRPC, "exporters::otlp::endpoint: x", []string{"exporters::otlp: denied"}},
		"through an alias":        {denyGRPC, "x: &x otlp\nexporters: {*x : }", []string{"exporters::otlp: denied"}},
		"references elsewhere":    {denyGRPC, "exporters: {debug: '${env:X}'}\nservice: {pipelines: '${env:X}'}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, c.policy.Validate())
			remote, err := Remote([]File{{Body: []byte(c.remote)}})
			require.NoError(t, err)
			violations := c.policy.Check(remote)
			require.Len(t, violations, len(c.want), "%v", violations)
			for i, want := range c.want {
				require.ErrorContains(t, violations[i], want)
			}
		})
	}
}

func TestDeniedWins(t *testing.T) {
	t.Parallel()
	p := Policy{Allowed: map[string][]string{"receivers": {"otlp"}}, Denied: map[string][]string{"receivers": {"otlp/x"}}}
	require.Empty(t, p.Check(map[string]any{"receivers": map[string]any{"otlp": nil}}))
	require.Len(t, p.Check(map[string]any{"receivers": map[string]any{"otlp/x": nil}}), 1)
}

// A map that Remote has not been through is checked in the form that the Collector would read.
func TestPolicyReadsMapsAsTheCollectorDoes(t *testing.T) {
	t.Parallel()
	p := Policy{Denied: map[string][]string{"exporters": {"otlp"}}}
	require.Len(t, p.Check(map[string]any{"exporters::otlp::endpoint": "x"}), 1)
	require.Len(t, p.Check(map[string]any{"exporters": map[any]any{"otlp": nil}}), 1)
	require.Len(t, p.Check(map[string]any{"exporters": map[string]any{"otlp::endpoint": "x"}}), 1)
	require.Len(t, p.Check(map[string]any{"exporters": 1, "exporters::debug": 2}), 1, "set twice")
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	err := Policy{
		Allowed: map[string][]string{"receiver": {"otlp"}, "receivers": {"otlp", "otlp/", ""}},
		Denied:  map[string][]string{"exporters": {" otlp", "*"}},
	}.Validate()
	for _, want := range []string{
		"remote_config::components_allowed::receiver: not a kind of component",
		`remote_config::components_allowed::receivers: malformed id "otlp/"`,
		`remote_config::components_allowed::receivers: malformed id ""`,
		`remote_config::components_denied::exporters: malformed id " otlp"`,
		`remote_config::components_denied::exporters: malformed id "*"`,
	} {
		require.ErrorContains(t, err, want)
	}
}
