package opampextension

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configopaque"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/agent"
)

const endpoint = "server: {ws: {endpoint: 'ws://127.0.0.1:4320/v1/opamp'}}\n"

// load reads YAML over the defaults as the Collector does: unknown keys are errors.
func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	values := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &values))
	cfg := createDefaultConfig().(*Config)
	return cfg, confmap.NewFromStringMap(values).Unmarshal(cfg)
}

func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := load(t, text)
	require.NoError(t, err)
	require.NoError(t, confmap.Validate(cfg))
	return cfg
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	cfg := mustLoad(t, endpoint)
	require.Equal(t, "ws://127.0.0.1:4320/v1/opamp", cfg.Server.WS.Get().Endpoint)
	require.Nil(t, cfg.Server.HTTP.Get())
	require.Equal(t, int64(agent.DefaultMaxMessage), cfg.Server.MaxMessageSize)
	require.Equal(t, component.ID{}, cfg.Server.WS.Get().Auth)
	require.Equal(t, Capabilities{
		ReportsEffectiveConfig: true, ReportsHealth: true, ReportsHeartbeat: true,
		ReportsAvailableComponents: true, AcceptsRestartCommand: true,
		AcceptsOpAMPConnectionSettings: true, ReportsConnectionSettingsStatus: true, AcceptsRemoteConfig: true, ReportsRemoteConfig: true, ReportsOwnMetrics: true, ReportsOwnTraces: true, ReportsOwnLogs: true, AcceptsOtherConnectionSettings: true,
	}, cfg.Capabilities, "the raw configuration is only reported on demand")
	require.Equal(t, "/var/lib/otelcol-collie/opamp", cfg.Storage.Directory)
	require.Equal(t, time.Minute, cfg.HealthGracePeriod)
	require.Equal(t, 5*time.Second, cfg.PPIDPollInterval)
	require.Zero(t, cfg.PPID)
	require.Empty(t, cfg.InstanceUID)

	h := mustLoad(t, "server: {http: {endpoint: 'http://127.0.0.1/v1/opamp'}}")
	require.Nil(t, h.Server.WS.Get())
	require.Equal(t, 30*time.Second, h.Server.HTTP.Get().PollingInterval)
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{name: "no server", yaml: "{}", want: []string{"server: set ws::endpoint or http::endpoint"}},
		{
			name: "both transports",
			yaml: "server: {ws: {endpoint: 'ws://a'}, http: {endpoint: 'http://a'}}",
			want: []string{"server: set either ws or http, not both"},
		},
		{name: "no endpoint", yaml: "server: {ws: {headers: {a: b}}}", want: []string{"server::ws::endpoint: "}},
		{name: "http on ws", yaml: "server: {ws: {endpoint: 'http://a'}}", want: []string{"server::ws::endpoint: ", `"http://a"`}},
		{name: "ws on http", yaml: "server: {http: {endpoint: 'ws://a'}}", want: []string{"server::http::endpoint: "}},
		{name: "no host", yaml: "server: {http: {endpoint: 'http:///v1/opamp'}}", want: []string{"server::http::endpoint: "}},
		{name: "not a URL", yaml: "server: {ws: {endpoint: 'ws://a:port'}}", want: []string{"server::ws::endpoint: "}},
		{name: "neither UUID nor ULID", yaml: endpoint + "instance_uid: collector-1", want: []string{`instance_uid: "collector-1"`}},
		{
			name: "certificate without key", yaml: "server: {ws: {endpoint: 'wss://a', tls: {cert_file: a.pem}}}",
			want: []string{"server::ws: ", "tls: TLS configuration must include both certificate and key"},
		},
		{
			name: "everything over HTTP",
			yaml: `
server:
  http: {endpoint: 'a', polling_interval: -1s}
  proxy: {url: 'ftp://a'}
  max_message_size: 0
instance_uid: x
ppid: -1
ppid_poll_interval: 0s
health_grace_period: -1s
`,
			want: []string{
				"server::http::endpoint: ", "server::http::polling_interval: ", "server::proxy::url: ", "server::max_message_size: ",
				"instance_uid: ", "ppid: ", "ppid_poll_interval: ", "health_grace_period: ",
			},
		},
		{
			name: "everything over WebSocket",
			yaml: "server: {ws: {endpoint: ''}, proxy: {url: 'a'}, max_message_size: -1}\ninstance_uid: x\nppid: -2",
			want: []string{"server::ws::endpoint: ", "server::proxy::url: ", "server::max_message_size: ", "instance_uid: ", "ppid: "},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, tt.yaml)
			require.NoError(t, err)
			before := *cfg
			err = confmap.Validate(cfg)
			require.Error(t, err)
			for _, part := range tt.want {
				require.ErrorContains(t, err, part)
			}
			require.Equal(t, before, *cfg, "Validate changes nothing")
		})
	}
}

// A password in a URL must not come back in the message about it.
func TestConfigErrorsHideCredentials(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"wrong scheme": "ftp://user:hunter22@proxy",
		"unreadable":   "http://user:hunter22@proxy:port",
		"no host":      "http://user:hunter22@",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := load(t, endpoint)
			require.NoError(t, err)
			cfg.Server.Proxy.URL = url
			err = cfg.Validate()
			require.ErrorContains(t, err, "server::proxy::url: ")
			require.NotContains(t, err.Error(), "hunter22")
		})
	}
}

func TestConfigUnknownKeys(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"server: {ws: {endpoint: 'ws://a', polling_interval: 1s}}",
		"server: {grpc: {endpoint: a}}",
		endpoint + "capabilities: {reports_helth: true}",
		endpoint + "instance: a",
		endpoint + "storage: {dir: a}",
		"server: {ws: {endpoint: 'ws://a', auth: ''}}",
	} {
		_, err := load(t, text)
		require.Error(t, err, text)
	}
}

// What the upstream extension takes is taken unchanged.
func TestConfigUpstream(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, yaml string
		check      func(*testing.T, *Config)
	}{
		{
			name: "WebSocket",
			yaml: `
server:
  ws:
    endpoint: wss://127.0.0.1:4320/v1/opamp
    headers: {X-Tenant: one}
    auth: bearertokenauth/opamp
    tls: {insecure: false, insecure_skip_verify: true, ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, server_name_override: x}
instance_uid: 01BX5ZZKBKACTAV9WEVGEMMVRZ
capabilities:
  reports_effective_config: false
  reports_health: false
  reports_available_components: false
  accepts_restart_command: false
agent_description:
  non_identifying_attributes: {custom: value}
  include_resource_attributes: true
ppid: 1234
ppid_poll_interval: 7s
`,
			check: func(t *testing.T, cfg *Config) {
				conn, transport := cfg.connection()
				require.Equal(t, agent.WebSocket, transport)
				require.Equal(t, defaultInterval, cfg.interval(transport), "of heartbeats")
				require.Equal(t, "wss://127.0.0.1:4320/v1/opamp", conn.Endpoint)
				require.Equal(t, map[string]configopaque.String{"X-Tenant": "one"}, conn.Headers)
				require.Equal(t, component.MustNewIDWithName("bearertokenauth", "opamp"), conn.Auth)
				require.Equal(t, "ca.pem", conn.TLS.CAFile)
				require.True(t, conn.TLS.InsecureSkipVerify)
				want := createDefaultConfig().(*Config).Capabilities
				want.ReportsEffectiveConfig, want.ReportsHealth, want.ReportsAvailableComponents, want.AcceptsRestartCommand = false, false, false, false
				require.Equal(t, want, cfg.Capabilities)
				require.Equal(t, AgentDescription{
					NonIdentifyingAttributes: map[string]string{"custom": "value"}, IncludeResourceAttributes: true,
				}, cfg.AgentDescription)
				require.Equal(t, int32(1234), cfg.PPID)
				require.Equal(t, 7*time.Second, cfg.PPIDPollInterval)
			},
		},
		{
			name: "HTTP",
			yaml: `
server:
  http:
    endpoint: https://127.0.0.1:4320/v1/opamp
    polling_interval: 1m
    headers: {Authorization: secret}
    auth: basicauth
    tls: {insecure: true}
instance_uid: 01020304-0506-7008-890a-0b0c0d0e0f10
`,
			check: func(t *testing.T, cfg *Config) {
				conn, transport := cfg.connection()
				require.Equal(t, agent.HTTP, transport)
				require.Equal(t, time.Minute, cfg.interval(transport))
				require.Equal(t, component.MustNewID("basicauth"), conn.Auth)
				require.True(t, conn.TLS.Insecure)
			},
		},
		{
			name: "polling interval of 0",
			yaml: "server: {http: {endpoint: 'http://127.0.0.1', polling_interval: 0s}}",
			check: func(t *testing.T, cfg *Config) {
				require.Equal(t, 30*time.Second, cfg.interval(agent.HTTP))
			},
		},
		{
			name: "no authentication",
			yaml: "server: {ws: {endpoint: 'ws://127.0.0.1', auth: null}}",
			check: func(t *testing.T, cfg *Config) {
				require.Equal(t, component.ID{}, cfg.Server.WS.Get().Auth)
			},
		},
		{
			name: "no heartbeats",
			yaml: endpoint + "capabilities: {reports_heartbeat: false}",
			check: func(t *testing.T, cfg *Config) {
				require.Zero(t, cfg.interval(agent.WebSocket))
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.check(t, mustLoad(t, tt.yaml))
		})
	}
}

func TestParseUID(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text, want string // want in hexadecimal; empty is an error
	}{
		{"none", "", "00000000000000000000000000000000"},
		{"UUID", "01020304-0506-7008-890a-0b0c0d0e0f10", "0102030405067008890a0b0c0d0e0f10"},
		{"ULID", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01563e3ab5d3d6764c61efb99302bd5b"},
		{"ULID in lower case", "01arz3ndektsv4rrffq69g5fav", "01563e3ab5d3d6764c61efb99302bd5b"},
		{"least ULID", "00000000000000000000000000", "00000000000000000000000000000000"},
		{"greatest ULID", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "ffffffffffffffffffffffffffffffff"},
		{"ULID of 131 bits", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", ""},
		{"letter that Crockford leaves out", "01ARZ3NDEKTSV4RRFFQ69G5FAU", ""},
		{"ULID too short", "01ARZ3NDEKTSV4RRFFQ69G5FA", ""},
		{"not ASCII", "01ARZ3NDEKTSV4RRFFQ69G5Fé", ""},
		{"text", "collector", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseUID(tt.text)
			if tt.want == "" {
				require.Error(t, err)
				require.Equal(t, uuid.Nil, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, hex.EncodeToString(got[:]))
		})
	}
}
