package packagedir

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/apiv1"
)

// rig is a directory with a signer.
type rig struct {
	*testing.T
	dir    string
	public string
	secret minisign.PrivateKey
}

func newRig(t *testing.T) *rig {
	t.Helper()
	public, secret, err := minisign.GenerateKey(nil)
	require.NoError(t, err)
	return &rig{t, t.TempDir(), public.String(), secret}
}

func sign(secret minisign.PrivateKey, content []byte, comment string) []byte {
	r := minisign.NewReader(bytes.NewReader(content))
	_, _ = io.Copy(io.Discard, r)
	return r.SignWithComments(secret, comment, "signature")
}

// put writes a file below the directory.
func (g *rig) put(name string, content []byte) {
	g.Helper()
	path := filepath.Join(g.dir, filepath.FromSlash(name))
	require.NoError(g, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(g, os.WriteFile(path, content, 0o755))
}

// add is a file that is signed right.
func (g *rig) add(version, platform string, content []byte) {
	g.Helper()
	name := version + "/" + platform + "/" + Name
	g.put(name, content)
	g.put(name+".minisig", sign(g.secret, content, Name+" "+version+" "+strings.Replace(platform, "-", "/", 1)))
}

func (g *rig) open() *Dir {
	g.Helper()
	d, err := Open(g.dir, []string{g.public})
	require.NoError(g, err)
	g.Cleanup(func() { require.NoError(g, d.Close()) })
	return d
}

func get(d *Dir, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/", nil)
	r.URL.Path = path
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func TestList(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	for _, version := range []string{"1.2.3", "1.10.0", "2.0.0-rc.1", "2.0.0"} {
		g.add(version, "linux-arm64", []byte(version))
	}
	g.add("1.2.3", "linux-amd64", []byte("amd64"))
	g.put(".hidden/file", nil)
	d := g.open()
	require.Empty(t, d.Problems())
	arm := []string{"linux/arm64"}
	require.Equal(t, []apiv1.Package{
		{Name: Name, Version: "2.0.0", Platforms: arm},
		{Name: Name, Version: "2.0.0-rc.1", Platforms: arm},
		{Name: Name, Version: "1.10.0", Platforms: arm},
		{Name: Name, Version: "1.2.3", Platforms: []string{"linux/amd64", "linux/arm64"}},
	}, d.List())
}

func TestOffer(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	content := []byte("program")
	g.add("1.2.3", "linux-amd64", content)
	g.add("1.2.3", "linux-arm64", []byte("another"))
	d := g.open()
	headers := http.Header{"X-B": {"2", "3"}, "Authorization": {"Bearer t"}}
	offer, err := d.Offer("1.2.3", "linux", "amd64", "https://collie.example:4320/base/", headers)
	require.NoError(t, err)
	require.Len(t, offer.Packages, 1)
	p := offer.Packages[Name]
	sum := sha256.Sum256(content)
	signature, err := os.ReadFile(filepath.Join(g.dir, "1.2.3/linux-amd64/otelcol-collie.minisig"))
	require.NoError(t, err)
	require.True(t, proto.Equal(&protobufs.PackageAvailable{Version: "1.2.3", Hash: p.Hash, File: &protobufs.DownloadableFile{
		DownloadUrl: "https://collie.example:4320/base/packages/1.2.3/linux-amd64/otelcol-collie", ContentHash: sum[:], Signature: signature,
		Headers: &protobufs.Headers{Headers: []*protobufs.Header{{Key: "Authorization", Value: "Bearer t"}, {Key: "X-B", Value: "2"}, {Key: "X-B", Value: "3"}}},
	}}, p), "%v", p)
	require.Len(t, p.Hash, sha256.Size)
	require.Len(t, offer.AllPackagesHash, sha256.Size)
	require.NotEqual(t, p.Hash, offer.AllPackagesHash)

	elsewhere, err := d.Offer("1.2.3", "linux", "amd64", "http://other", nil)
	require.NoError(t, err)
	require.Equal(t, offer.AllPackagesHash, elsewhere.AllPackagesHash, "the same package from elsewhere")
	require.Equal(t, p.Hash, elsewhere.Packages[Name].Hash)
	arm, err := d.Offer("1.2.3", "linux", "arm64", "http://other", nil)
	require.NoError(t, err)
	require.NotEqual(t, p.Hash, arm.Packages[Name].Hash)
	require.NotEqual(t, offer.AllPackagesHash, arm.AllPackagesHash)

	for _, c := range [][3]string{{"1.2.4", "linux", "amd64"}, {"1.2.3", "linux", "386"}, {"", "", ""}, {"1.2.3/linux-amd64/../../1.2.3", "linux", "amd64"}} {
		_, err := d.Offer(c[0], c[1], c[2], "http://other", nil)
		require.ErrorIs(t, err, ErrNoPackage, "%v", c)
	}
	for _, base := range []string{"", "collie:4320", "/packages", "ftp://collie", "http://", "http://\x00"} {
		_, err := d.Offer("1.2.3", "linux", "amd64", base, nil)
		require.ErrorContains(t, err, "base URL", base)
	}
}

// TestNotOffered: what is not signed right is reported, and neither listed, offered nor served.
func TestNotOffered(t *testing.T) {
	t.Parallel()
	const good = Name + " 1.0.0 linux/amd64"
	content := []byte("program")
	_, stranger, err := minisign.GenerateKey(nil)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		signature func(g *rig) []byte
		want      string
	}{
		"not signed":       {func(*rig) []byte { return nil }, "not signed"},
		"garbage":          {func(*rig) []byte { return []byte("x") }, "no minisign signature"},
		"too long":         {func(*rig) []byte { return make([]byte, 5000) }, "more than 4096"},
		"a stranger":       {func(*rig) []byte { return sign(stranger, content, good) }, "not among the public keys"},
		"another version":  {func(g *rig) []byte { return sign(g.secret, content, Name+" 1.0.1 linux/amd64") }, `sign with -t "` + good},
		"another platform": {func(g *rig) []byte { return sign(g.secret, content, Name+" 1.0.0 linux/arm64") }, "sign with -t"},
		"another program":  {func(g *rig) []byte { return sign(g.secret, content, "otelcol 1.0.0 linux/amd64") }, "sign with -t"},
		"another file":     {func(g *rig) []byte { return sign(g.secret, []byte("other"), good) }, "does not belong to the file"},
		"comment forged": {func(g *rig) []byte {
			return bytes.Replace(sign(g.secret, content, Name+" 1.0.1 linux/amd64"), []byte("1.0.1"), []byte("1.0.0"), 1)
		}, "does not belong to the file"},
		"not prehashed": {func(g *rig) []byte { return minisign.SignWithComments(g.secret, content, good, "") }, "not prehashed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.add("0.9.0", "linux-amd64", []byte("good"))
			g.put("1.0.0/linux-amd64/"+Name, content)
			if text := c.signature(g); text != nil {
				g.put("1.0.0/linux-amd64/"+Name+".minisig", text)
			}
			d := g.open()
			require.Len(t, d.Problems(), 1)
			require.ErrorContains(t, d.Problems()[0], "1.0.0/linux-amd64: ")
			require.ErrorContains(t, d.Problems()[0], c.want)
			require.Len(t, d.List(), 1, "others are not touched")
			_, err := d.Offer("1.0.0", "linux", "amd64", "http://collie", nil)
			require.ErrorIs(t, err, ErrNoPackage)
			require.Equal(t, http.StatusNotFound, get(d, "GET", "/packages/1.0.0/linux-amd64/otelcol-collie").Code)
		})
	}
}

func TestOddDirectories(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.put("README", nil)
	g.add("1.0.0", "linux", nil)
	g.add("1 0", "linux-amd64", nil)
	require.NoError(t, os.MkdirAll(filepath.Join(g.dir, "1.0.1/linux-amd64", Name), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(g.dir, "1.0.2/linux-amd64"), 0o755))
	outside := newRig(t)
	outside.add("1.0.3", "linux-amd64", []byte("secret"))
	if err := os.Symlink(filepath.Join(outside.dir, "1.0.3"), filepath.Join(g.dir, "1.0.3")); err == nil {
		defer func() { require.NoError(t, os.Remove(filepath.Join(g.dir, "1.0.3"))) }()
	}
	d := g.open()
	require.Empty(t, d.List())
	require.GreaterOrEqual(t, len(d.Problems()), 5)
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	_, err := Open(filepath.Join(g.dir, "no"), []string{g.public})
	require.ErrorContains(t, err, "package directory")
	_, err = Open(g.dir, nil)
	require.ErrorContains(t, err, "no public keys")
	_, err = Open(g.dir, []string{g.public, "s3cret"})
	require.ErrorContains(t, err, "public key 2")
	require.NotContains(t, err.Error(), "s3cret")
}

func TestServe(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	content := bytes.Repeat([]byte("0123456789"), 1000)
	g.add("1.2.3+a", "linux-amd64", content)
	d := g.open()
	const path = "/packages/1.2.3+a/linux-amd64/otelcol-collie"
	w := get(d, "GET", path)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, content, w.Body.Bytes())
	etag := w.Header().Get("ETag")
	require.NotEmpty(t, etag)
	w = get(d, "GET", path, "Range", "bytes=9990-", "If-Range", etag)
	require.Equal(t, http.StatusPartialContent, w.Code)
	require.Equal(t, "0123456789", w.Body.String())
	require.Equal(t, http.StatusOK, get(d, "GET", path, "Range", "bytes=9990-", "If-Range", `"another"`).Code)
	require.Equal(t, http.StatusRequestedRangeNotSatisfiable, get(d, "GET", path, "Range", "bytes=10001-").Code)
	require.Empty(t, get(d, "HEAD", path).Body.Bytes())
	require.Equal(t, http.StatusMethodNotAllowed, get(d, "POST", path).Code)

	g.put("secret", []byte("s"))
	for _, p := range []string{
		"", "/", "/packages", "/packages/", "/packages/1.2.3+a", "/packages/1.2.3+a/linux-amd64/", path + ".minisig", path + "/", "/packages/secret",
		"/packages/../secret", "/packages/1.2.3+a/../1.2.3+a/linux-amd64/otelcol-collie", "/packages//1.2.3+a/linux-amd64/otelcol-collie",
		"/packages/../../../../etc/passwd", `/packages/..\secret`, "/packages/\x00", strings.TrimPrefix(path, "/packages"),
	} {
		w := get(d, "GET", p)
		require.Equal(t, http.StatusNotFound, w.Code, p)
		require.NotContains(t, w.Body.String(), "secret")
	}
}

// TestChangedFiles: what is served is what was verified.
func TestChangedFiles(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	g.add("1.0.0", "linux-amd64", []byte("one"))
	d := g.open()
	const path = "/packages/1.0.0/linux-amd64/otelcol-collie"
	file := filepath.Join(g.dir, "1.0.0/linux-amd64", Name)
	require.NoError(t, os.WriteFile(file, []byte("two"), 0o755))
	require.NoError(t, os.Chtimes(file, time.Time{}, time.Now().Add(time.Hour)))
	require.Equal(t, http.StatusNotFound, get(d, "GET", path).Code)
	require.NoError(t, d.Reload())
	require.Len(t, d.Problems(), 1)
	g.add("1.0.0", "linux-amd64", []byte("two"))
	g.add("1.1.0", "linux-amd64", []byte("three"))
	require.NoError(t, d.Reload())
	require.Empty(t, d.Problems())
	require.Equal(t, "two", get(d, "GET", path).Body.String())
	require.Len(t, d.List(), 2)
	require.NoError(t, os.RemoveAll(filepath.Join(g.dir, "1.0.0")))
	require.Equal(t, http.StatusNotFound, get(d, "GET", path).Code)
}

func TestPlatformOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		system, arch, wantSystem, wantArch string
		ok                                 bool
	}{
		{"linux", "amd64", "linux", "amd64", true},
		{"Linux", "x86_64", "linux", "amd64", true},
		{"darwin", "aarch64", "darwin", "arm64", true},
		{"linux", "arm32", "linux", "arm", true},
		{"windows", "x86", "windows", "386", true},
		{"z_os", "s390x", "zos", "s390x", true},
		{"", "amd64", "", "amd64", false},
		{"linux", "", "linux", "", false},
		{"linux", "../x", "linux", "../x", false},
		{"li-nux", "amd64", "li-nux", "amd64", false},
	} {
		system, arch, ok := PlatformOf(map[string]string{"os.type": c.system, "host.arch": c.arch})
		require.Equal(t, c.ok, ok, "%v", c)
		require.Equal(t, c.wantSystem, system)
		require.Equal(t, c.wantArch, arch)
	}
}
