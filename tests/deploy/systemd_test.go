package deploy_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// unit is a unit file: section, key, values in order.
type unit map[string]map[string][]string

func readUnit(t *testing.T, path string) unit {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	u, section := unit{}, ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			u[section] = map[string][]string{}
		default:
			key, value, ok := strings.Cut(line, "=")
			require.True(t, ok, line)
			require.NotEmpty(t, section, line)
			u[section][key] = append(u[section][key], value)
		}
	}
	return u
}

// readEnvironment reads an EnvironmentFile: set are the variables, suggested those that are commented out.
func readEnvironment(t *testing.T, path string) (set, suggested map[string]string) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	set, suggested = map[string]string{}, map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(#?)([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(content), -1) {
		if m[1] == "" {
			set[m[2]] = strings.Trim(m[3], `"`)
		} else {
			suggested[m[2]] = m[3]
		}
	}
	return set, suggested
}

func unitFile(t *testing.T) string {
	return repoFile(t, "deploy", "systemd", "otelcol-collie.service")
}

func TestSystemdUnitSays(t *testing.T) {
	t.Parallel()
	service := readUnit(t, unitFile(t))["Service"]
	for key, want := range map[string]string{
		"ExecStart": "/usr/bin/otelcol-collie $OTELCOL_OPTIONS", "ExecReload": "/bin/kill -HUP $MAINPID", "Type": "exec", "Restart": "on-failure",
		"EnvironmentFile": "/etc/otelcol-collie/otelcol-collie.env", "Environment": "COLLIE_HOST_NAME=%H",
		"DynamicUser": "yes", "User": "otelcol-collie", "StateDirectory": "otelcol-collie", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
		"ProtectHome": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "", "LimitNOFILE": "65536",
		"TimeoutStopSec": "60s", "KillMode": "mixed",
	} {
		require.Equal(t, []string{want}, service[key], key)
	}
	require.NotContains(t, service, "ProcSubset", "host_metrics reads /proc/stat and others")
	require.NotEmpty(t, service["MemoryMax"], "memory_limiter and GOMEMLIMIT go by it")
}

// systemd-analyze knows every directive and how much they leave open; it needs no running systemd.
func TestSystemdAnalyzeFindsNothing(t *testing.T) {
	t.Parallel()
	analyze := tool(t, "systemd-analyze")
	content, err := os.ReadFile(unitFile(t))
	require.NoError(t, err)
	// It looks whether programs exist; the Collector is not installed here.
	here := strings.Replace(string(content), "/usr/bin/otelcol-collie", otelcol(t), 1)
	dir := t.TempDir()
	path := filepath.Join(dir, "otelcol-collie.service")
	require.NoError(t, os.WriteFile(path, []byte(here), 0o600))
	env := []string{"PATH=/usr/bin:/bin", "SYSTEMD_UNIT_PATH=" + dir + ":", "LC_ALL=C"}
	require.Empty(t, command(t, time.Minute, env, analyze, "verify", "--man=no", path), "warnings")
	out := command(t, time.Minute, env, analyze, "security", "--no-pager", "--offline=true", "--threshold=15", path)
	require.Contains(t, out, "Overall exposure level", "the test asked for nothing")

	broken := strings.Replace(here, "ProtectHome=", "ProtectHouse=", 1)
	require.NoError(t, os.WriteFile(path, []byte(broken), 0o600))
	out, _ = output(t, time.Minute, env, analyze, "verify", "--man=no", path)
	require.Contains(t, out, "ProtectHouse", "a wrong name must be seen, or the check above sees nothing")
}

func TestSystemdEnvironmentFitsTheConfigurations(t *testing.T) {
	t.Parallel()
	set, suggested := readEnvironment(t, repoFile(t, "deploy", "systemd", "otelcol-collie.env"))
	require.Equal(t, []string{"OTELCOL_OPTIONS"}, keys(set))
	known := variables(t, repoFile(t, "configs", "agent.yaml"), repoFile(t, "configs", "gateway.yaml"))
	require.NotEmpty(t, suggested)
	for name := range suggested {
		require.Contains(t, known, name, "a suggestion that no configuration reads")
	}
	require.Contains(t, known, "COLLIE_HOST_NAME", "set by the unit")
}

func keys(m map[string]string) []string {
	var names []string
	for name := range maps.Keys(m) {
		names = append(names, name)
	}
	return names
}

// The unit's command with the unit's environment, as systemd makes them; only the paths lead to the repository and to a
// temporary directory, and the ports are free ones.
func TestSystemdCommandRuns(t *testing.T) {
	t.Parallel()
	service := readUnit(t, unitFile(t))["Service"]
	set, _ := readEnvironment(t, repoFile(t, "deploy", "systemd", "otelcol-collie.env"))
	argv := []string{otelcol(t)}
	for _, option := range strings.Fields(set["OTELCOL_OPTIONS"]) {
		argv = append(argv, strings.Replace(option, "/etc/otelcol-collie/configs", repoFile(t, "configs"), 1))
	}
	hostname, err := os.Hostname()
	require.NoError(t, err)
	p := freePorts(t, "127.0.0.1")
	env := append(p.env("127.0.0.1"), fmt.Sprintf("COLLIE_METRICS_PORT=%d", p.metrics), "COLLIE_STATE_DIR="+t.TempDir(),
		strings.Replace(service["Environment"][0], "%H", hostname, 1), "GOMEMLIMIT=400MiB")
	run := harness.StartProcess(t, "otelcol-collie", env, argv...)
	awaitReady := func(starts int) {
		harness.Await(t, time.Minute, fmt.Sprintf("ready %d times", starts), func() (bool, any) {
			run.MustRun()
			_, err := get(fmt.Sprintf("http://127.0.0.1:%d/", p.health))
			return err == nil && strings.Count(run.Log(), "Everything is ready.") == starts, err
		})
	}
	awaitReady(1)
	run.Signal(syscall.SIGHUP) // ExecReload
	awaitReady(2)
	run.MustStop()
}
