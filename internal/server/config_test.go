package server

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	require.NoError(t, c.Validate())
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"beyond loopback":       {func(c *Config) { c.API.Listen = "0.0.0.0:1" }, "api::listen: 0.0.0.0:1 is not loopback and there is no TLS"},
		"beyond loopback, name": {func(c *Config) { c.OpAMP.Listen = "example.com:1" }, "opamp::listen: example.com:1 is not loopback"},
		"dev beyond loopback":   {func(c *Config) { c.Dev, c.API.Listen = true, ":1" }, "--dev has no tokens"},
		"no port":               {func(c *Config) { c.API.Listen = "x" }, "want host:port"},
		"half of TLS":           {func(c *Config) { c.API.TLS.CertFile = "x" }, "give both cert_file and key_file"},
		"public URL":            {func(c *Config) { c.OpAMP.PublicURL = "https://x/y" }, "opamp::public_url"},
		"certificates":          {func(c *Config) { c.Certificates = true }, "set opamp::tls"},
		"packages":              {func(c *Config) { c.Packages.Directory = "x" }, "nothing unsigned is offered"},
		"no folder":             {func(c *Config) { c.DataDir = "" }, "data_dir is empty"},
		"retention":             {func(c *Config) { c.Retention.Agents = -1 }, "none below zero"},
	} {
		c := DefaultConfig()
		tc.change(&c)
		require.ErrorContains(t, c.Validate(), tc.want, name)
	}
	c.API.Listen, c.Insecure = "0.0.0.0:1", true
	require.NoError(t, c.Validate(), "somebody insists")
	c.API.TLS, c.Insecure = TLS{CertFile: "x", KeyFile: "y"}, false
	require.NoError(t, c.Validate(), "TLS and tokens")
}

func TestReadConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "server.yaml")
	read := func(content string) (Config, error) {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		c := DefaultConfig()
		return c, c.ReadConfig(path)
	}
	c, err := read("")
	require.NoError(t, err)
	require.Equal(t, DefaultConfig(), c)
	c, err = read("opamp: {listen: '127.0.0.1:1', drain_for: 1m, tls: {cert_file: a, key_file: b}}\nretention: {agents: 0s}\n")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", c.OpAMP.Listen)
	require.Equal(t, time.Minute, c.OpAMP.DrainFor)
	require.Equal(t, "127.0.0.1:4321", c.API.Listen)
	require.Zero(t, c.Retention.Agents)
	require.Equal(t, 24*time.Hour, c.Retention.HideAgents)
	for _, bad := range []string{"opamp: {listne: x}", "a: [", "retention: {agents: never}"} {
		_, err := read(bad)
		require.ErrorContains(t, err, path)
	}
	require.Error(t, c.ReadConfig(filepath.Join(t.TempDir(), "none")))
}
