package opampprovider

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func create() confmap.Provider { return NewFactory().Create(confmap.ProviderSettings{}) }

func TestScheme(t *testing.T) {
	require.Equal(t, "opamp", create().Scheme())
	require.NoError(t, confmaptest.ValidateProviderScheme(create()))
}

func TestBadURIs(t *testing.T) {
	for _, uri := range []string{"", "opamp", "opamp:", "file:/x", "OPAMP:/x", "/x"} {
		_, err := create().Retrieve(t.Context(), uri, nil)
		require.ErrorContains(t, err, "want opamp:FILE", uri)
	}
}

func TestShutdownOfAProviderThatNobodyAsked(t *testing.T) {
	require.NoError(t, create().Shutdown(t.Context()))
	require.NoError(t, create().Shutdown(t.Context()))
}

// A process has one base file; the test that opens it has a process of its own.
const child = "COLLIE_PROVIDER_CHILD"

func TestRetrieve(t *testing.T) {
	if dir := os.Getenv(child); dir != "" {
		retrieve(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRetrieve$", "-test.v")
	cmd.Env = append(os.Environ(), child+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestRetrieve")
}

// retrieve asks for the same file by several names and through several providers, for another one, and looks for traces.
func retrieve(t *testing.T, dir string) {
	file := filepath.Join(dir, "base.yaml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, `
receivers: {nop: {x: "${env:LATER}"}}
extensions: {opamp: {server: {ws: {endpoint: "ws://127.0.0.1:1"}}, storage: {directory: %q}}}
service: {extensions: [opamp]}
`, filepath.Join(dir, "state")), 0o600))
	before := listing(t, dir)
	t.Chdir(dir)
	for _, uri := range []string{"opamp:" + file, "opamp:base.yaml", "opamp:./x/../base.yaml"} {
		retrieved, err := create().Retrieve(t.Context(), uri, func(*confmap.ChangeEvent) { t.Error("nothing has changed") })
		require.NoError(t, err)
		conf, err := retrieved.AsConf()
		require.NoError(t, err)
		require.Equal(t, "${env:LATER}", conf.Get("receivers::nop::x"), "references are the resolver's")
		require.NoError(t, retrieved.Close(context.Background()))
	}
	_, err := create().Retrieve(t.Context(), "opamp:"+filepath.Join(dir, "other.yaml"), nil)
	require.ErrorContains(t, err, "is for one file")
	require.NoError(t, create().Shutdown(t.Context()))
	require.Equal(t, before, listing(t, dir))
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		files = append(files, fmt.Sprint(path, info.Size(), info.ModTime()))
		return nil
	}))
	return files
}
