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
	{"", "github.com/stretchr/testify", "tests only"},
	{"", "sigs.k8s.io/kustomize", "tests only"},
}

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
		if strings.HasPrefix(folder, "tests/") {
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

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		if len(p.GoFiles) > 0 {
			require.NotEmpty(t, p.Doc, "%s has no package comment", p.ImportPath)
		}
	}
}
