package remoteconfig

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
)

// openOnly forgets the manager of this process for the time of a test.
func openOnly(t *testing.T) {
	t.Helper()
	forget := func() {
		current.mu.Lock()
		defer current.mu.Unlock()
		current.manager, current.runner = nil, false
	}
	forget()
	t.Cleanup(forget)
}

func TestOneManagerForOneFile(t *testing.T) {
	openOnly(t)
	require.Nil(t, Current())
	m, err := Open("/a.yaml")
	require.NoError(t, err)
	again, err := Open("/a.yaml")
	require.NoError(t, err)
	require.Same(t, m, again)
	require.Same(t, m, Current())
	_, err = Open("/b.yaml")
	require.ErrorContains(t, err, "/a.yaml is in use, and /b.yaml was asked for")
}

func TestRunWithoutTheScheme(t *testing.T) {
	openOnly(t)
	failed := errors.New("no such file")
	runs := 0
	require.Equal(t, failed, Run(nil, func() error { runs++; return failed }))
	require.NoError(t, Run(nil, func() error { runs++; return nil }))
	require.Equal(t, 2, runs)
}

func TestRunOfABaseFileThatIsNotThere(t *testing.T) {
	openOnly(t)
	err := Run(nil, func() error {
		m, err := Open(filepath.Join(t.TempDir(), "none.yaml"))
		require.NoError(t, err)
		_, err = m.Retrieve(t.Context(), func(*confmap.ChangeEvent) {})
		return err
	})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadBase(t *testing.T) {
	tests := map[string]struct{ content, extension, err string }{
		"plain":            {"extensions: {opamp: {}}\nservice: {extensions: [opamp]}", "opamp", ""},
		"named":            {"extensions: {opamp/a: {}, opamp: {}}\nservice: {extensions: [x, opamp/a]}", "opamp/a", ""},
		"two in use":       {"extensions: {opamp/a: {}, opamp: {}}\nservice: {extensions: [opamp, opamp/a]}", "", "two OpAMP extensions"},
		"not in use":       {"extensions: {opamp: {}}\nservice: {extensions: []}", "", "needs the extension opamp"},
		"not there":        {"extensions: {}\nservice: {extensions: [opamp]}", "", "needs the extension opamp"},
		"a reference":      {"extensions: ${env:X}\nservice: {extensions: [opamp]}", "", "needs the extension opamp"},
		"not a map":        {"[]", "", "base.yaml"},
		"empty":            {"", "", "needs the extension opamp"},
		"wrong settings":   {"extensions: {opamp: {remote_config: {soak: -1s, mode: x}}}\nservice: {extensions: [opamp]}", "", "soak: must not be negative"},
		"wrong type":       {"extensions: {opamp: {remote_config: {soak: [1]}}}\nservice: {extensions: [opamp]}", "", "soak"},
		"unknown provider": {"extensions: {opamp: {storage: {directory: \"${vault:x}\"}}}\nservice: {extensions: [opamp]}", "", "vault"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "base.yaml")
			require.NoError(t, os.WriteFile(file, []byte(tt.content), 0o600))
			b, err := readBase(t.Context(), file)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.extension, b.extension)
			require.True(t, b.local.Capabilities.AcceptsRemoteConfig)
			require.Equal(t, DefaultSettings(), b.local.RemoteConfig)
			var id component.ID
			require.NoError(t, id.UnmarshalText([]byte(tt.extension)))
			require.True(t, b.isFor(id))
			require.False(t, b.isFor(component.MustNewIDWithName("opamp", "other")))
		})
	}
}

func TestBaseResolvesTheAgentsReferences(t *testing.T) {
	t.Setenv("STATE", "/state")
	t.Setenv("URL", "wss://a/v1/opamp")
	file := filepath.Join(t.TempDir(), "base.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
receivers: {x: "${env:NOT_SET}"}
extensions:
  basicauth/x: {}
  opamp: {server: {ws: {endpoint: "${env:URL}", auth: basicauth/x}}, storage: {directory: "${env:STATE}"}, capabilities: {accepts_remote_config: false}}
service: {extensions: [opamp, basicauth/x]}`), 0o600))
	b, err := readBase(t.Context(), file)
	require.NoError(t, err)
	require.Equal(t, "/state", b.local.Storage.Directory)
	require.Equal(t, []string{"basicauth/x"}, b.keep)
	require.False(t, b.plaintext)
	require.False(t, b.local.Capabilities.AcceptsRemoteConfig)
	require.Equal(t, "${env:NOT_SET}", b.conf["receivers"].(map[string]any)["x"])
}
