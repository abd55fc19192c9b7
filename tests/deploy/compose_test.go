package deploy_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// composeFile is as much of the Compose format as the shipped files use; another key is an error.
type composeFile struct {
	Name     string                    `yaml:"name"`
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]struct{}       `yaml:"volumes"`
	Common   any                       `yaml:"x-collie"`
	Gateway  any                       `yaml:"x-gateway"`
	Sampler  any                       `yaml:"x-sampler"`
}

type composeService struct {
	Image           string            `yaml:"image"`
	User            string            `yaml:"user"`
	ReadOnly        bool              `yaml:"read_only"`
	CapDrop         []string          `yaml:"cap_drop"`
	SecurityOpt     []string          `yaml:"security_opt"`
	Restart         string            `yaml:"restart"`
	StopGracePeriod time.Duration     `yaml:"stop_grace_period"`
	MemLimit        string            `yaml:"mem_limit"`
	Command         []string          `yaml:"command"`
	Environment     map[string]string `yaml:"environment"`
	Ports           []string          `yaml:"ports"`
	Volumes         []composeVolume   `yaml:"volumes"`
	DependsOn       map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
	Networks map[string]struct {
		Aliases []string `yaml:"aliases"`
	} `yaml:"networks"`
	Healthcheck *struct {
		Interval time.Duration `yaml:"interval"`
	} `yaml:"healthcheck"`
	Deploy struct {
		Replicas int `yaml:"replicas"`
	} `yaml:"deploy"`
}

// composeVolume reads the short form and the long one.
type composeVolume struct {
	Source   string
	Target   string
	ReadOnly bool
}

func (v *composeVolume) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		parts := strings.Split(node.Value, ":")
		v.Source, v.Target, v.ReadOnly = parts[0], parts[1], len(parts) == 3 && parts[2] == "ro"
		return nil
	}
	var long struct {
		Source, Target string
		ReadOnly       bool `yaml:"read_only"`
	}
	err := node.Decode(&long)
	*v = composeVolume(long)
	return err
}

var composeFiles = []string{"agent-gateway", "tiered"}

func readCompose(t *testing.T, name string) composeFile {
	t.Helper()
	content, err := os.ReadFile(repoFile(t, "deploy", "compose", name+".yaml"))
	require.NoError(t, err)
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	var file composeFile
	require.NoError(t, decoder.Decode(&file))
	return file
}

// eachService runs a test on every service of every file.
func eachService(t *testing.T, test func(t *testing.T, file composeFile, name string, s composeService)) {
	t.Helper()
	for _, name := range composeFiles {
		file := readCompose(t, name)
		require.Equal(t, "collie-"+name, file.Name)
		for service, s := range file.Services {
			t.Run(name+"/"+service, func(t *testing.T) { test(t, file, service, s) })
		}
	}
}

func TestComposeServicesAreHardened(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, _ composeFile, name string, s composeService) {
		require.True(t, s.ReadOnly)
		require.Equal(t, []string{"ALL"}, s.CapDrop)
		require.Equal(t, []string{"no-new-privileges:true"}, s.SecurityOpt)
		require.Equal(t, "unless-stopped", s.Restart)
		require.NotEmpty(t, s.MemLimit, "memory_limiter and GOMEMLIMIT go by it")
		for _, port := range s.Ports {
			require.Regexp(t, `^127\.0\.0\.1:`, port)
		}
		if name == "haproxy" {
			require.Equal(t, "99:99", s.User)
			return
		}
		require.Equal(t, "10001:10001", s.User)
		require.NotNil(t, s.Healthcheck)
		require.GreaterOrEqual(t, s.StopGracePeriod, time.Minute)
		if strings.HasPrefix(name, "sampler") {
			require.Equal(t, 90*time.Second, s.StopGracePeriod)
		}
	})
}

func TestComposePathsExist(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, file composeFile, name string, s composeService) {
		for _, v := range s.Volumes {
			if !strings.ContainsAny(v.Source, "./") {
				require.Contains(t, file.Volumes, v.Source)
				require.Equal(t, "/var/lib/otelcol-collie", v.Target)
				require.LessOrEqual(t, s.Deploy.Replicas, 1, "replicas would share the queue")
				for other, o := range file.Services {
					shared := slices.ContainsFunc(o.Volumes, func(w composeVolume) bool { return w.Source == v.Source })
					require.False(t, shared && other != name, "%s and %s share a queue", name, other)
				}
				continue
			}
			require.True(t, v.ReadOnly, v.Source)
			if !filepath.IsAbs(v.Source) {
				require.FileExists(t, filepath.Join(repoFile(t, "deploy", "compose"), v.Source, map[bool]string{true: "agent.yaml"}[strings.HasSuffix(v.Source, "configs")]))
			}
		}
		for other, dependency := range s.DependsOn {
			require.Contains(t, file.Services, other)
			if other == "haproxy" { // its image has no health check
				require.Equal(t, "service_started", dependency.Condition)
			} else {
				require.Equal(t, "service_healthy", dependency.Condition)
			}
		}
	})
}

var interpolation = regexp.MustCompile(`\$\{[A-Z_]+(?::-([^}]*)|:\?[^}]*)\}`)

// interpolate puts in the defaults, and an example where a value is required.
func interpolate(value string) string {
	return interpolation.ReplaceAllStringFunc(value, func(match string) string {
		if _, byDefault, ok := strings.Cut(match, ":-"); ok {
			return strings.TrimSuffix(byDefault, "}")
		}
		return "127.0.0.1:5317"
	})
}

// The configurations are those of configs/, the environment fits them, and the binary accepts the whole.
func TestComposeRunsTheShippedConfigurations(t *testing.T) {
	t.Parallel()
	eachService(t, func(t *testing.T, file composeFile, name string, s composeService) {
		env := map[string]string{}
		for key, value := range s.Environment {
			env[key] = interpolate(value)
		}
		if name == "haproxy" {
			requireHAProxyReads(t, env)
			require.True(t, slices.ContainsFunc(slices.Collect(maps.Keys(file.Services)), func(service string) bool {
				return service == env["COLLIE_POOL"] || slices.Contains(file.Services[service].Networks["default"].Aliases, env["COLLIE_POOL"])
			}), "nobody is called %s", env["COLLIE_POOL"])
			return
		}
		mounted := slices.ContainsFunc(s.Volumes, func(v composeVolume) bool {
			return v.Source == "../../configs" && v.Target == "/etc/otelcol-collie/configs"
		})
		require.True(t, mounted)
		var configs []string
		for _, arg := range s.Command {
			config, ok := strings.CutPrefix(arg, "--config=/etc/otelcol-collie/configs/")
			require.True(t, ok, arg)
			configs = append(configs, repoFile(t, "configs", config))
		}
		requireVariables(t, env, configs...)
		if host, ok := env["COLLIE_HOST_ROOT"]; ok {
			require.True(t, slices.Contains(s.Volumes, composeVolume{"/", host, true}))
			env["COLLIE_HOST_ROOT"] = t.TempDir()
		}
		env["COLLIE_STATE_DIR"] = t.TempDir()
		validate(t, env, configs...)
	})
}

func requireHAProxyReads(t *testing.T, env map[string]string) {
	t.Helper()
	cfg, err := os.ReadFile(repoFile(t, "deploy", "compose", "haproxy.cfg"))
	require.NoError(t, err)
	for name := range env {
		require.Contains(t, string(cfg), "presetenv "+name+" ")
	}
}
