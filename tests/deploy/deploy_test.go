// Package deploy_test holds deploy/ and the image to what they promise: manifests are built and decoded strictly, and the
// binary, the image, HAProxy and the compose files are run for real, in namespaces of their own.
package deploy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// installDeps is what a test says when something is missing: a skip would be taken for a success.
const installDeps = "run scripts/install-test-deps.sh"

// repoFile is the absolute path of a file of the repository.
func repoFile(t *testing.T, elem ...string) string {
	t.Helper()
	return filepath.Join(append([]string{harness.Root(t)}, elem...)...)
}

// otelcol is the path of the Collector under test: COLLIE_OTELCOL, or what `make build` makes.
func otelcol(t *testing.T) string {
	t.Helper()
	path := os.Getenv("COLLIE_OTELCOL")
	if path == "" {
		path = repoFile(t, "bin", "otelcol-collie")
	}
	_, err := os.Stat(path)
	require.NoError(t, err, "run `make build`, or name the binary in COLLIE_OTELCOL")
	return path
}

// tool is the path of a program of the system. sbin is where Debian keeps daemons, and not in everyone's PATH.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append([]string{"/usr/bin", "/usr/sbin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	require.FailNow(t, name+" is missing: "+installDeps)
	return ""
}

// command runs a program to its end and returns its output; it must succeed within the limit.
func command(t *testing.T, limit time.Duration, env []string, name string, args ...string) string {
	t.Helper()
	out, err := output(t, limit, env, name, args...)
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), out)
	return out
}

func output(t *testing.T, limit time.Duration, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("%w after %s", context.Cause(ctx), limit)
	}
	return strings.TrimSpace(string(out)), err
}

var variablePattern = regexp.MustCompile(`\$\{env:([A-Za-z_][A-Za-z0-9_]*)(:-)?`)

// variables are the environment variables that configuration files read; true are those without a default.
func variables(t *testing.T, files ...string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, m := range variablePattern.FindAllStringSubmatch(line, -1) {
				found[m[1]] = found[m[1]] || m[2] == ""
			}
		}
	}
	return found
}

// runtimeVariables are read by the binary and by the Go runtime, not by a configuration.
var runtimeVariables = map[string]bool{"GOGC": true, "GOMEMLIMIT": true, "AUTOMEMLIMIT": true, "GOMAXPROCS": true}

// requireVariables holds an environment to the files it is for: what they require is set, and what is set is read.
func requireVariables(t *testing.T, env map[string]string, files ...string) {
	t.Helper()
	read := variables(t, files...)
	for name, required := range read {
		if required {
			require.Contains(t, env, name, "read without a default by %v", files)
		}
	}
	for name := range env {
		_, ok := read[name]
		require.True(t, ok || runtimeVariables[name], "%s is set, but read by none of %v", name, files)
	}
}

// validate runs `otelcol-collie validate` with exactly this environment.
func validate(t *testing.T, env map[string]string, configs ...string) {
	t.Helper()
	args := []string{"validate"}
	for _, config := range configs {
		args = append(args, "--config="+config)
	}
	list := []string{"GOMEMLIMIT=1GiB"} // else it looks for a cgroup
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	command(t, time.Minute, list, otelcol(t), args...)
}
