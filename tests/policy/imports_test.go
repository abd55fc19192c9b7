package policy

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// ban is an import that a part of the project must not have, and why.
type ban struct{ from, to, why string }

var bans = []ban{
	{"extension/", "internal/traffic", "a Collector carries no test traffic"},
	{"extension/", "cmd/", "components do not know the command line"},
	{"receiver/", "internal/traffic", "a Collector carries no test traffic"},
	{"receiver/", "internal/agent", "a receiver knows nothing of the control plane"},
	{"receiver/", "extension/", "components do not import each other"},
	{"extension/", "receiver/", "components do not import each other"},
	{"receiver/", "cmd/", "components do not know the command line"},
	{"internal/", "cmd/", "cmd is the top of the order: flags, signals, one call"},
	{"internal/traffic", "tests/", "programs do not depend on tests"},
	{"internal/", "tests/", "programs do not depend on tests"},
	{"cmd/", "tests/", "programs do not depend on tests"},
	{"extension/", "internal/server", "components do not carry the control plane"},
	{"confmap/", "internal/server", "components do not carry the control plane"},
	{"receiver/", "internal/server", "components do not carry the control plane"},
	{"extension/", "github.com/spf13/cobra", "components have no flags"},
	{"extension/", "internal/server", "an agent carries no server"},
	{"extension/", "internal/fleet", "an agent knows nothing of the fleet"},
	{"confmap/", "internal/server", "an agent carries no server"},
	{"confmap/", "internal/fleet", "an agent knows nothing of the fleet"},
	{"receiver/", "internal/server", "a receiver knows nothing of the control plane"},
	{"receiver/", "internal/fleet", "a receiver knows nothing of the control plane"},
	{"", contractTests, "tests only"},
	{"", "github.com/stretchr/testify", "tests only"},
	{"", "sigs.k8s.io/kustomize", "tests only"},
}

// contractTests is a package for tests that is not made of test files, so that several implementations can run it.
const contractTests = "internal/server/store/storetest"

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath string
	Imports    []string
	GoFiles    []string
	Doc        string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,GoFiles,Doc", "./...")
	cmd.Dir = harness.Root(t)
	out, err := cmd.Output()
	require.NoError(t, err)
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		folder := strings.TrimPrefix(p.ImportPath, ourModule+"/")
		if strings.HasPrefix(folder, "tests/") || folder == contractTests {
			continue
		}
		for _, imported := range p.Imports {
			imported = strings.TrimPrefix(imported, ourModule+"/")
			for _, b := range bans {
				require.False(t, strings.HasPrefix(folder, b.from) && strings.HasPrefix(imported, b.to),
					"%s imports %s: %s", folder, imported, b.why)
			}
		}
	}
}

// TestTheDomainStandsAlone: whatever the domain decides must not depend on a library, a wire, or a database.
func TestTheDomainStandsAlone(t *testing.T) {
	t.Parallel()
	found := false
	for _, p := range listPackages(t) {
		if strings.TrimPrefix(p.ImportPath, ourModule+"/") != "internal/fleet" {
			continue
		}
		found = true
		for _, imported := range p.Imports {
			first, _, _ := strings.Cut(imported, "/")
			require.NotContains(t, first, ".", "internal/fleet imports %s: the domain has the standard library only", imported)
		}
	}
	require.True(t, found)
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		if len(p.GoFiles) > 0 {
			require.NotEmpty(t, p.Doc, "%s has no package comment", p.ImportPath)
		}
	}
}
