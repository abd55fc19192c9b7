//go:build unix

package packagedir

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/packages"
)

// TestAnAgentInstallsIt has our agent's installer take an offer, from the server's directory to its own executable.
func TestAnAgentInstallsIt(t *testing.T) {
	t.Parallel()
	program := func(version string) []byte {
		return fmt.Appendf(nil, "#!/bin/sh\n[ \"$1\" = --version ] && echo 'otelcol-collie version %s'\nexit 0\n", version)
	}
	g := newRig(t)
	g.add("1.1.0", runtime.GOOS+"-"+runtime.GOARCH, program("1.1.0"))
	d := g.open()
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)

	executable := filepath.Join(t.TempDir(), "otelcol-collie")
	require.NoError(t, os.WriteFile(executable, program("1.0.0"), 0o755))
	limits := packages.DefaultLimits()
	m, err := packages.Open(packages.Options{
		Directory: t.TempDir(), Executable: executable, Version: "1.0.0", PublicKeys: []string{g.public}, Limits: limits, Logger: zap.NewNop(),
		DryRun: packages.Validate(nil, []string{"PATH=/usr/bin:/bin"}, limits.DryRun),
	})
	require.NoError(t, err)
	t.Cleanup(m.Close)
	system, arch, ok := PlatformOf(map[string]string{"os.type": runtime.GOOS, "host.arch": runtime.GOARCH})
	require.True(t, ok)
	offer, err := d.Offer("1.1.0", system, arch, server.URL, nil)
	require.NoError(t, err)
	m.Offer(offer)
	select {
	case <-m.Restart():
	case <-time.After(30 * time.Second):
		require.FailNow(t, "not installed", "%v", m.Statuses())
	}
	installed, err := os.ReadFile(executable)
	require.NoError(t, err)
	require.Equal(t, program("1.1.0"), installed)
	require.NotEqual(t, protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed, m.Statuses().Packages[Name].GetStatus())
}
