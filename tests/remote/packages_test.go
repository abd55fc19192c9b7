package remote

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// update is an agent with a copy of its own of the executable, and what signs and serves the next one.
type update struct {
	*env
	executable string
	key        minisign.PrivateKey
	next       []byte
	url        string
	when       string // a file: when it says "ready", the Collector is unwell from then on
}

func newUpdate(t *testing.T) *update {
	t.Helper()
	public, private, err := minisign.GenerateKey(rand.Reader)
	require.NoError(t, err)
	u := &update{key: private, executable: filepath.Join(t.TempDir(), "otelcol-collie"), when: filepath.Join(t.TempDir(), "when")}
	current, err := os.ReadFile(harness.Binary(t, "test/otelcol-unruly"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(u.executable, current, 0o755))
	require.NoError(t, os.WriteFile(u.when, []byte("never"), 0o600))
	u.next, err = os.ReadFile(harness.Binary(t, "test/otelcol-next"))
	require.NoError(t, err)
	downloads := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Token") != "s3cr3t" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "otelcol-collie", time.Time{}, strings.NewReader(string(u.next)))
	}))
	t.Cleanup(downloads.Close)
	u.url = downloads.URL
	content := edited(t, "    storage:", "    capabilities: {accepts_packages: true, reports_package_statuses: true}\n    packages: {public_keys: ["+public.String()+"]}\n    storage:")
	content = strings.Replace(content, "processors:\n", "processors:\n  unruly: {on: \"${file:"+u.when+"}\", do: permanent}\n", 1)
	content = strings.Replace(content, "processors: [batch]", "processors: [unruly, batch]", 1)
	u.env = start(t, options{base: content, binary: u.executable})
	return u
}

// offer sends the next executable, signed with a comment by a key.
func (u *update) offer(hash string, key minisign.PrivateKey, comment string) {
	u.t.Helper()
	reader := minisign.NewReader(strings.NewReader(string(u.next)))
	_, err := io.Copy(io.Discard, reader)
	require.NoError(u.t, err)
	signature := reader.SignWithComments(key, comment, "")
	sum := sha256.Sum256(u.next)
	u.fleet.send(&protobufs.ServerToAgent{PackagesAvailable: &protobufs.PackagesAvailable{
		AllPackagesHash: []byte("all-" + hash),
		Packages: map[string]*protobufs.PackageAvailable{"otelcol-collie": {
			Type: protobufs.PackageType_PackageType_TopLevel, Version: "99.0.0", Hash: []byte(hash),
			File: &protobufs.DownloadableFile{
				DownloadUrl: u.url, ContentHash: sum[:], Signature: signature,
				Headers: &protobufs.Headers{Headers: []*protobufs.Header{{Key: "X-Token", Value: "s3cr3t"}}},
			},
		}},
	}})
}

// awaitPackage waits for a status of the package that was offered under a hash.
func (u *update) awaitPackage(hash string, status protobufs.PackageStatusEnum) *protobufs.PackageStatus {
	u.t.Helper()
	var found *protobufs.PackageStatus
	harness.Await(u.t, 60*time.Second, status.String()+" of "+hash, func() (bool, any) {
		u.fleet.mu.Lock()
		defer u.fleet.mu.Unlock()
		var last any = "nothing said"
		for _, m := range u.fleet.messages {
			s := m.GetPackageStatuses().GetPackages()["otelcol-collie"]
			if s == nil {
				continue
			}
			if last = s; string(s.ServerOfferedHash) == hash && s.Status == status {
				found = s
				return true, nil
			}
		}
		return false, last
	})
	return found
}

func (u *update) awaitVersion(version string) {
	u.t.Helper()
	harness.Await(u.t, 60*time.Second, "version "+version, func() (bool, any) {
		u.fleet.mu.Lock()
		defer u.fleet.mu.Unlock()
		said := ""
		for _, m := range u.fleet.messages {
			for _, a := range m.GetAgentDescription().GetIdentifyingAttributes() {
				if a.Key == "service.version" {
					said = a.Value.GetStringValue()
				}
			}
		}
		return said == version, said
	})
}

var platform = runtime.GOOS + "/" + runtime.GOARCH

// A signed executable takes the place of the running one: same PID, same identity, and the configuration stays.
func TestSignedExecutableIsInstalled(t *testing.T) {
	t.Parallel()
	u := newUpdate(t)
	u.fleet.push("attribute", strings.Replace(addAttribute, "[attributes/test, batch]", "[unruly, attributes/test, batch]", 1))
	u.fleet.await(0, "attribute", "APPLIED")
	pid := u.collector.PID()

	u.offer("next", u.key, "otelcol-collie 99.0.0 "+platform)
	u.awaitPackage("next", protobufs.PackageStatusEnum_PackageStatusEnum_Installed)
	u.awaitVersion("99.0.0")
	u.collector.AwaitReady()
	require.Equal(t, pid, u.collector.PID())
	installed, err := os.ReadFile(u.executable)
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(u.next), sha256.Sum256(installed))
	u.requireWorks("unruly", "attributes/test", "batch")
	require.NotContains(t, u.collector.Log(), "s3cr3t")
	u.collector.Stop()
}

// Nothing that is not signed for this program, version and platform is ever run.
func TestUnsignedExecutableIsRefused(t *testing.T) {
	t.Parallel()
	u := newUpdate(t)
	before, err := os.ReadFile(u.executable)
	require.NoError(t, err)
	_, other, err := minisign.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for hash, offer := range map[string]func(hash string){
		"other key":      func(hash string) { u.offer(hash, other, "otelcol-collie 99.0.0 "+platform) },
		"other version":  func(hash string) { u.offer(hash, u.key, "otelcol-collie 98.0.0 "+platform) },
		"other platform": func(hash string) { u.offer(hash, u.key, "otelcol-collie 99.0.0 plan9/mips") },
	} {
		offer(hash)
		t.Log(u.awaitPackage(hash, protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed).ErrorMessage)
	}
	after, err := os.ReadFile(u.executable)
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(before), sha256.Sum256(after))
	u.requireWorks("unruly", "batch")
	u.collector.Stop()
}

// An executable with which the Collector is unwell is taken back, and the one before runs again.
func TestExecutableThatIsUnwellIsTakenBack(t *testing.T) {
	t.Parallel()
	u := newUpdate(t)
	before, err := os.ReadFile(u.executable)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(u.when, []byte("ready"), 0o600))

	u.offer("next", u.key, "otelcol-collie 99.0.0 "+platform)
	failed := u.awaitPackage("next", protobufs.PackageStatusEnum_PackageStatusEnum_InstallFailed)
	require.Contains(t, failed.ErrorMessage, "processor:unruly")
	harness.Await(t, 30*time.Second, "the executable before", func() (bool, any) {
		now, err := os.ReadFile(u.executable)
		return err == nil && sha256.Sum256(now) == sha256.Sum256(before), fmt.Sprint(err)
	})
	u.collector.AwaitReady()
	require.NoError(t, os.WriteFile(u.when, []byte("never"), 0o600))
	u.requireWorks("unruly", "batch")
	u.collector.Stop()
}
