package fleet

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
)

// TestConformanceThroughRestarts ends and starts a server while agents of both transports know it.
func TestConformanceThroughRestarts(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, harness.ServerOptions{})
	agents := []*speaker{newSpeaker(t, server, overWebSocket), newSpeaker(t, server, overHTTP)}
	offered := map[*speaker][]byte{}
	for _, a := range agents {
		a.release("receivers: {none: {}}\n")
		a.full.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{"com.example"}}
		offered[a] = a.take()
		require.Nil(t, a.say(a.status(offered[a], failed)).RemoteConfig)
		a.believed("failed", func(v apiv1.Agent) bool { return v.State == "config_failed" && len(v.CustomCapabilities) == 1 })
		a.status([]byte("of before"), applied) // as a Collector that has gone back says with its next full report
	}
	ended := make(chan time.Duration, 1)
	go func() {
		begin := time.Now()
		_ = server.Stop(soon)
		ended <- time.Since(begin)
	}()
	t.Run("Closing Connection/the server ends with a Close frame of 1001", func(*testing.T) {
		agents[0].awaitClose(websocket.StatusGoingAway)
		agents[0].hangUp()
	})
	require.Less(t, <-ended, soon)
	require.NoError(t, server.Wait())
	server.Start()
	for _, a := range agents {
		t.Run("Agent Status Compression/a server that has started anew asks for everything/"+a.over, func(t *testing.T) {
			require.False(t, a.believed("away", func(apiv1.Agent) bool { return true }).Connected)
			require.Equal(t, fullState, a.beat().Flags&fullState)
			a.full.CustomCapabilities = &protobufs.CustomCapabilities{}
		})
		t.Run("RemoteConfigStatus/what failed is not offered again after a restart/"+a.over, func(t *testing.T) {
			require.Nil(t, a.hello().RemoteConfig)
			require.Equal(t, "config_failed", a.believed("there", func(v apiv1.Agent) bool { return v.Connected }).State)
			a.never("what failed", hasRemoteConfig)
		})
		t.Run("Agent Status Compression/what the full report leaves out after a restart is gone/"+a.over, func(*testing.T) {
			a.believed("no custom capabilities", func(v apiv1.Agent) bool { return len(v.CustomCapabilities) == 0 })
		})
		t.Run("Configuration/another content is offered after all/"+a.over, func(t *testing.T) {
			a.beat()
			a.rollOut("exporters: {}\n")
			hash := a.until("the offer", hasRemoteConfig).RemoteConfig.ConfigHash
			require.NotEqual(t, offered[a], hash)
		})
	}
}

// signed is a folder with one executable for linux/amd64, and the key of its signature.
func signed(t *testing.T, version string) (dir, key string) {
	t.Helper()
	public, secret, err := minisign.GenerateKey(nil)
	require.NoError(t, err)
	content := []byte("program")
	r := minisign.NewReader(bytes.NewReader(content))
	_, err = io.Copy(io.Discard, r)
	require.NoError(t, err)
	dir = t.TempDir()
	path := filepath.Join(dir, version, "linux-amd64", "otelcol-collie")
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, content, 0o755))
	require.NoError(t, os.WriteFile(path+".minisig", r.SignWithComments(secret, "otelcol-collie "+version+" linux/amd64", ""), 0o600))
	return dir, public.String()
}

func hasPackages(m *protobufs.ServerToAgent) bool { return m.PackagesAvailable != nil }

// wantPackage has this agent run a version.
func (a *speaker) wantPackage() {
	a.Helper()
	a.ask(http.MethodPut, "/packages/offers/"+a.name(), apiv1.PackageOffer{Selector: a.selector(), Version: "1.2.3"}, nil)
}

// packageDuties need a server that has packages.
var packageDuties = []duty{
	{name: "ServerToAgent.capabilities/a server with packages says so", run: func(a *speaker) {
		require.EqualValues(a, 0x18, a.hello().Capabilities&0x18)
	}},
	{name: "Packages/an offer has its hashes and where the file is", run: func(a *speaker) {
		a.full.Capabilities |= acceptsPackages | reportsPackages
		a.wantPackage()
		m := a.hello().PackagesAvailable
		require.NotEmpty(a, m.GetAllPackagesHash())
		p := m.Packages["otelcol-collie"]
		require.Equal(a, "1.2.3", p.GetVersion())
		require.NotEmpty(a, p.Hash)
		require.NotEmpty(a, p.File.GetContentHash())
		require.NotEmpty(a, p.File.Signature)
		resp, body := a.request(http.MethodGet, p.File.DownloadUrl, nil)
		require.Equal(a, http.StatusOK, resp.StatusCode)
		require.Equal(a, "program", string(body))
	}},
	{name: "Packages/what is reported is not sent again, whatever became of it", run: func(a *speaker) {
		a.full.Capabilities |= acceptsPackages | reportsPackages
		a.wantPackage()
		m := a.hello().PackagesAvailable
		a.full.PackageStatuses = &protobufs.PackageStatuses{ServerProvidedAllPackagesHash: m.GetAllPackagesHash(), Packages: map[string]*protobufs.PackageStatus{
			"otelcol-collie": {Name: "otelcol-collie", ServerOfferedVersion: "1.2.3", Status: protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed, ErrorMessage: "no"},
		}}
		require.Nil(a, a.say(&protobufs.AgentToServer{PackageStatuses: a.full.PackageStatuses}).PackagesAvailable)
		a.believed("failed", func(v apiv1.Agent) bool { return len(v.Packages) == 1 && v.Packages[0].Error == "no" })
		a.leave()
		require.Nil(a, a.hello().PackagesAvailable)
		a.never("the same again", hasPackages)
	}},
	{name: "Interoperability of Partial Implementations/without AcceptsPackages none are offered", run: func(a *speaker) {
		a.wantPackage()
		require.Nil(a, a.hello().PackagesAvailable)
		a.never("packages", hasPackages)
	}},
	{name: "Interoperability of Partial Implementations/AcceptsPackages added gets them with the answer, taken away no more", run: func(a *speaker) {
		a.hello()
		a.wantPackage()
		a.full.Capabilities |= acceptsPackages | reportsPackages
		m := a.beat()
		require.NotNil(a, m.PackagesAvailable)
		a.full.Capabilities &^= acceptsPackages
		require.Nil(a, a.hello().PackagesAvailable)
		a.wantPackage()
		a.never("packages", hasPackages)
	}},
}

func TestConformancePackages(t *testing.T) {
	t.Parallel()
	dir, key := signed(t, "1.2.3")
	server := harness.StartServer(t, harness.ServerOptions{Args: []string{"--packages-dir", dir, "--packages-key", key}})
	runDuties(t, server, packageDuties)
}
