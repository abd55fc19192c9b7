package policy

import (
	"bytes"
	"debug/elf"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/inventory"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	coreVersion   = "v0.159.0"
	stableVersion = "v1.65.0"
	ourModule     = "github.com/collie-otel/collie"

	// maxBytes is the budget of the binary: people put it on every node.
	maxBytes = 90_000_000
	// maxGrowth is how much the binary may grow before somebody must look at the table again.
	maxGrowth = 1.02
)

// manifest is builder-config.yaml with every key we use: ocb ignores keys that it does not know, so a typo would pass.
type manifest struct {
	Dist struct {
		Module, Name, Description, Version string
		OutputPath                         string `yaml:"output_path"`
		BuildTags                          string `yaml:"build_tags"`
	}
	Receivers, Processors, Exporters, Connectors, Extensions, Providers []struct{ Gomod, Import string }
	Replaces                                                            []string
}

func readManifest(t *testing.T) manifest {
	t.Helper()
	f, err := os.Open(filepath.Join(harness.Root(t), "builder-config.yaml"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var m manifest
	decoder := yaml.NewDecoder(f)
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&m))
	return m
}

func (m manifest) modules() map[string][]string {
	modules := map[string][]string{}
	for kind, entries := range map[string][]struct{ Gomod, Import string }{
		"receivers": m.Receivers, "processors": m.Processors, "exporters": m.Exporters,
		"connectors": m.Connectors, "extensions": m.Extensions, "providers": m.Providers,
	} {
		for _, e := range entries {
			modules[kind] = append(modules[kind], e.Gomod)
		}
	}
	return modules
}

func TestManifestHasOneReleaseLine(t *testing.T) {
	t.Parallel()
	m := readManifest(t)
	require.Equal(t, strings.TrimPrefix(coreVersion, "v"), m.Dist.Version)
	for kind, modules := range m.modules() {
		for _, module := range modules {
			path, version, _ := strings.Cut(module, " ")
			if path != ourModule {
				require.Contains(t, []string{coreVersion, stableVersion}, version, "%s: %s is of another release", kind, path)
			}
		}
	}
}

func TestBinaryHoldsTheManifest(t *testing.T) {
	t.Parallel()
	inv := readInventory(t)
	for kind, modules := range readManifest(t).modules() {
		var built []string
		for _, c := range inv[kind] {
			built = append(built, c.Module)
		}
		require.ElementsMatch(t, modules, built, "%s of builder-config.yaml and of `otelcol-collie components`: run `make build`", kind)
	}
}

func readInventory(t *testing.T) inventory.Inventory {
	t.Helper()
	inv, err := inventory.Read(t.Context(), harness.Binary(t, "otelcol-collie"))
	require.NoError(t, err)
	return inv
}

func TestTableOfComponentsIsUpToDate(t *testing.T) {
	t.Parallel()
	f, err := os.Open(filepath.Join(harness.Root(t), "docs", "components.md"))
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	table, err := inventory.ReadTable(f)
	require.NoError(t, err)
	require.Equal(t, readInventory(t), table.Inventory, "docs/components.md is stale: run `make components`")

	info, err := os.Stat(harness.Binary(t, "otelcol-collie"))
	require.NoError(t, err)
	require.LessOrEqual(t, info.Size(), int64(maxBytes), "the binary is over its budget")
	require.LessOrEqual(t, float64(info.Size()), maxGrowth*float64(table.Bytes),
		"the binary grew by more than 2 %% since docs/components.md was measured: see what it is, then run `make components`")
	t.Logf("%d bytes, %+.2f %% against the table", info.Size(), 100*(float64(info.Size())/float64(table.Bytes)-1))
}

// Our main takes the place of the one that ocb generates; what they hand to the Collector must be the same.
func TestMainHandsOverWhatTheGeneratedOneDoes(t *testing.T) {
	t.Parallel()
	root := harness.Root(t)
	ours := readSettings(t, filepath.Join(root, "distribution", "main.go"))
	generated := readSettings(t, filepath.Join(root, "distribution", "build", "main.go.generated"))
	require.Equal(t, generated.fields, ours.fields)
	for name, path := range generated.imports {
		require.Equal(t, path, ours.imports[name], "import %s", name)
	}
	require.Contains(t, ours.calls, "gomem.Apply", "the memory limit is set before anything else")
}

// settings is the otelcol.CollectorSettings of a main.go, printed field by field, with all imports and calls of the file.
type settings struct {
	fields, imports map[string]string
	calls           []string
}

func readSettings(t *testing.T, path string) settings {
	t.Helper()
	fset := token.NewFileSet()
	source, err := os.ReadFile(path)
	require.NoError(t, err)
	file, err := parser.ParseFile(fset, path, source, 0)
	require.NoError(t, err)
	s := settings{fields: map[string]string{}, imports: map[string]string{}}
	for _, i := range file.Imports {
		if i.Name != nil {
			s.imports[i.Name.Name] = i.Path.Value
		}
	}
	text := func(n ast.Node) string {
		var b bytes.Buffer
		require.NoError(t, printer.Fprint(&b, fset, n))
		return strings.Join(strings.Fields(b.String()), " ")
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			s.calls = append(s.calls, text(n.Fun))
		case *ast.CompositeLit:
			if text(n.Type) != "otelcol.CollectorSettings" {
				break
			}
			for _, element := range n.Elts {
				field := element.(*ast.KeyValueExpr)
				s.fields[text(field.Key)] = text(field.Value)
			}
		}
		return true
	})
	for _, want := range []string{"Factories", "ConfigProviderSettings", "ProviderModules", "ConverterModules"} {
		require.Contains(t, s.fields, want, path)
	}
	return s
}

// The programs run from an empty image and on any distribution: no dynamic linker, no symbols, and they say which version they are.
func TestProgramsAreStaticAndStamped(t *testing.T) {
	t.Parallel()
	for name, flag := range map[string]string{"otelcol-collie": "--version", "collie": "version"} {
		path := harness.Binary(t, name)
		program, err := elf.Open(path)
		require.NoError(t, err)
		for _, segment := range program.Progs {
			require.NotEqual(t, elf.PT_INTERP, segment.Type, "%s asks for a dynamic linker: build it with CGO_ENABLED=0", name)
		}
		require.Nil(t, program.Section(".symtab"), "%s carries symbols: build it with -s -w", name)
		require.NoError(t, program.Close())
		out, err := exec.CommandContext(t.Context(), path, flag).Output()
		require.NoError(t, err)
		require.Regexp(t, `\b\d+\.\d+\.\d+`, string(out), "%s: not stamped with a version", name)
	}
}
