package fleet

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func placed(name, selector string, priority int, body string) Placement {
	s, err := ParseSelector(selector)
	if err != nil {
		panic(err)
	}
	return Placement{Version: &Version{Configuration: name, Number: 1, Selector: s, Priority: priority, Body: []byte(body), Hash: ContentHash([]byte(body))}}
}

func TestDesiredFilesAreInOrder(t *testing.T) {
	t.Parallel()
	a := &Agent{UID: "u", Identifying: map[string]string{"env": "prod"}}
	deployments := []Deployment{
		{Released: placed("zeta", "env=prod", 1, "z")},
		{Released: placed("b", "", 5, "b")},
		{Released: placed("a", "env", 5, "a")},
		{Released: placed("other", "env=stage", 0, "o")},
		{},
	}
	set := Desired(a, deployments)
	names := []string{}
	for _, f := range set.Files {
		names = append(names, f.Name)
	}
	require.Equal(t, []string{"0000-zeta", "0001-a", "0002-b"}, names)
	require.IsIncreasing(t, names, "agents merge in the order of names")
	require.Equal(t, "z", string(set.Files[0].Body))

	deployments[0], deployments[2] = deployments[2], deployments[0]
	require.Equal(t, set.Hash, Desired(a, deployments).Hash, "the order in which they are given does not matter")
	forced := append([]Deployment{}, deployments...)
	forced[0].Released.Salt = "again"
	require.NotEqual(t, set.Hash, Desired(a, forced).Hash)

	bridge := &Agent{NonIdentifying: map[string]string{"opentelemetry.io/opamp.bridge.mode": "operator"}}
	require.Equal(t, "b", Desired(bridge, deployments).Files[0].Name)
}

func TestDesiredHashOfNothing(t *testing.T) {
	t.Parallel()
	a := &Agent{UID: "u"}
	require.Empty(t, Desired(a, nil).Hash, "an agent that was never offered anything is left alone")
	a.RemoteConfig.OfferedHash = "x"
	require.NotEmpty(t, Desired(a, nil).Hash, "what was given is taken away")
	a.NonIdentifying = map[string]string{"opentelemetry.io/opamp.bridge.mode": "operator"}
	require.Empty(t, Desired(a, nil).Hash, "an OpAMPBridge would delete all it has")
}

func TestSetHashHasNoCollisionsByConcatenation(t *testing.T) {
	t.Parallel()
	a := &Agent{}
	seen := map[string]bool{}
	for _, d := range [][]Deployment{
		{{Released: placed("a", "", 0, "x")}},
		{{Released: placed("a", "", 0, "y")}},
		{{Released: placed("ab", "", 0, "x")}},
		{{Released: placed("a", "", 0, "x")}, {Released: placed("b", "", 0, "x")}},
	} {
		for _, salt := range []string{"", "s"} {
			d[0].Released.Salt = salt
			seen[Desired(a, d).Hash] = true
		}
	}
	require.Len(t, seen, 8)
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", "base", "tail-sampling.v2", "default/gateway", "a_b", strings.Repeat("a", 128)} {
		require.NoError(t, ValidateName(name), name)
	}
	for _, name := range []string{"", "A", "..", "../x", "a/../b", "a/b/c", "/a", "a/", "-a", "a-", "a b", "a@1", "a\x00", "ä", "a\n", strings.Repeat("a", 129)} {
		require.Error(t, ValidateName(name), name)
	}
	v := Version{Configuration: "..", Priority: MaxPriority + 1, Author: "\xff"}
	require.Len(t, strings.Split(v.Validate().Error(), "\n"), 3, "all errors at once")
}
