// Command components writes docs/components.md: what the built otelcol-collie contains, and what each component adds to it,
// measured by building it once more without that component. `make components` calls it after a change of the manifest.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/collie-otel/collie/internal/inventory"
)

const (
	binary    = "bin/otelcol-collie"
	generated = "distribution/build"
	output    = "docs/components.md"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: components GO_BUILD_ARGUMENT...  (run it by `make components`)")
		os.Exit(64)
	}
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "components:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, buildArgs []string) error {
	inv, err := inventory.Read(ctx, binary)
	if err != nil {
		return err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	w := weigher{buildArgs: buildArgs, full: info.Size()}
	if w.dir, err = os.MkdirTemp("", "components"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(w.dir) }()

	var kubernetesUsers []inventory.Component
	table := inventory.Table{Inventory: inv, Bytes: info.Size(), Adds: map[string]map[string]int64{}}
	for _, kind := range inventory.Kinds {
		table.Adds[kind.Name] = map[string]int64{}
		for _, c := range inv[kind.Name] {
			adds, err := w.weigh(ctx, kind.Name, c)
			if err != nil {
				return fmt.Errorf("weigh %s %s: %w", kind.Name, c.Name, err)
			}
			fmt.Fprintf(os.Stderr, "%-12s %-24s %8.2f MB\n", kind.Name, c.Name, float64(adds)/1e6)
			table.Adds[kind.Name][c.Name] = adds
			for _, name := range inventory.KubernetesUsers {
				if c.Name == name {
					kubernetesUsers = append(kubernetesUsers, c)
				}
			}
		}
	}
	if table.Kubernetes, err = w.weigh(ctx, "", kubernetesUsers...); err != nil {
		return fmt.Errorf("weigh the Kubernetes client: %w", err)
	}
	f, err := os.Create(output)
	if err != nil {
		return err
	}
	if err := table.Write(f); err != nil {
		return err
	}
	return f.Close()
}

// weigher builds the Collector without one component at a time.
type weigher struct {
	buildArgs []string
	full      int64  // bytes of the whole binary
	dir       string // for what it builds
}

// weigh returns what the binary loses without the components, in bytes.
func (w weigher) weigh(ctx context.Context, kind string, components ...inventory.Component) (int64, error) {
	overlay := map[string]string{}
	for _, name := range []string{"components.go", "main.go"} {
		path, err := filepath.Abs(filepath.Join(generated, name))
		if err != nil {
			return 0, err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		for _, c := range components {
			source = []byte(remove(string(source), kind, c.Module))
		}
		without := filepath.Join(w.dir, name)
		if err := os.WriteFile(without, source, 0o600); err != nil {
			return 0, err
		}
		overlay[path] = without
	}
	overlayFile, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return 0, err
	}
	overlayPath, out := filepath.Join(w.dir, "overlay.json"), filepath.Join(w.dir, "otelcol")
	if err := os.WriteFile(overlayPath, overlayFile, 0o600); err != nil {
		return 0, err
	}
	args := slices.Concat([]string{"build", "-overlay", overlayPath, "-o", out}, w.buildArgs, []string{"."})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr, cmd.Env = generated, os.Stderr, append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	info, err := os.Stat(out)
	if err != nil {
		return 0, err
	}
	return w.full - info.Size(), nil
}

// typeLine is the line of a map of modules that ties an import's name to its module.
var typeLine = regexp.MustCompile(`(?m)^\s*(\w+)\.NewFactory\(\)\..*: +"([^"]+)",$`)

// remove takes a component out of generated source: every line that calls its factory, and its import.
func remove(source, kind, module string) string {
	var aliases []string
	for _, m := range typeLine.FindAllStringSubmatch(source, -1) {
		if m[2] == module {
			aliases = append(aliases, m[1])
		}
	}
	if len(aliases) > 1 { // one module with components of several kinds: they are named after their kind
		aliases = slices.DeleteFunc(aliases, func(alias string) bool { return !strings.HasSuffix(alias, strings.TrimSuffix(kind, "s")) })
	}
	var kept []string
	for line := range strings.Lines(source) {
		text := strings.TrimSpace(line)
		drop := slices.ContainsFunc(aliases, func(alias string) bool {
			return strings.HasPrefix(text, alias+".NewFactory()") || strings.HasPrefix(text, alias+` "`)
		})
		if !drop {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
