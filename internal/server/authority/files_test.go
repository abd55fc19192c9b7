package authority_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/server/authority"
)

func TestOpenTwice(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	first := open(t, dir)
	key := filepath.Join(dir, authority.KeyFile)
	if runtime.GOOS != "windows" {
		require.NoError(t, os.Chmod(key, 0o644))
	}
	second := open(t, dir)
	require.Equal(t, first.PEM(), second.PEM())
	if runtime.GOOS != "windows" {
		info, err := os.Stat(key)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	certPEM, err := first.Sign(request(t, newKey(t, elliptic.P256()), named(uid)), uid, time.Hour)
	require.NoError(t, err)
	verify(t, second, parse(t, certPEM))
	require.False(t, first.Pool().Equal(open(t, t.TempDir()).Pool()), "each directory has its own")
}

// TestDamage: what cannot be read is reported, and stays as it is.
func TestDamage(t *testing.T) {
	t.Parallel()
	foreign := t.TempDir()
	open(t, foreign)
	read := func(dir, name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return data
	}
	key := newKey(t, elliptic.P256())
	leafOfForeign, err := open(t, foreign).Sign(request(t, key, named(uid)), uid, time.Hour)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		file string
		data []byte
		want string
	}{
		"empty key":           {authority.KeyFile, nil, "damaged"},
		"cut key":             {authority.KeyFile, read(foreign, authority.KeyFile)[:80], "damaged"},
		"garbage in a block":  {authority.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "restore both files"},
		"another key":         {authority.KeyFile, read(foreign, authority.KeyFile), "of another key"},
		"empty certificate":   {authority.CertificateFile, nil, "damaged"},
		"another certificate": {authority.CertificateFile, read(foreign, authority.CertificateFile), "of another key"},
		"a client's":          {authority.CertificateFile, leafOfForeign, "no certificate of an authority"},
		"a key for it":        {authority.CertificateFile, read(foreign, authority.KeyFile), "no PEM block of type CERTIFICATE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open(t, dir)
			before := map[string][]byte{authority.KeyFile: read(dir, authority.KeyFile), authority.CertificateFile: read(dir, authority.CertificateFile)}
			before[c.file] = append([]byte{}, c.data...)
			require.NoError(t, os.WriteFile(filepath.Join(dir, c.file), c.data, 0o600))
			_, err := authority.Open(dir, time.Now)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "from a backup")
			for file, data := range before {
				require.Equal(t, data, read(dir, file), file)
			}
		})
	}
}

func TestMissingFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, dir)
	certPEM, err := first.Sign(request(t, newKey(t, elliptic.P256()), named(uid)), uid, time.Hour)
	require.NoError(t, err)

	require.NoError(t, os.Remove(filepath.Join(dir, authority.CertificateFile)))
	verify(t, open(t, dir), parse(t, certPEM)) // a start that died between its two files

	require.NoError(t, os.Remove(filepath.Join(dir, authority.KeyFile)))
	_, err = authority.Open(dir, time.Now)
	require.ErrorContains(t, err, "there is a certificate, but not its key")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = authority.Open(file, time.Now)
	require.Error(t, err)
}

// TestRenewal: the authority outlives its certificate, and what it signed before stays valid.
func TestRenewal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	clock := func() time.Time { return now }
	first, err := authority.Open(dir, clock)
	require.NoError(t, err)
	now = now.Add(9 * 365 * 24 * time.Hour)
	csr := request(t, newKey(t, elliptic.P256()), named(uid))
	certPEM, err := first.Sign(csr, uid, 5*365*24*time.Hour)
	require.NoError(t, err)
	c := parse(t, certPEM)
	require.Equal(t, parse(t, first.PEM()).NotAfter, c.NotAfter, "never longer than the authority")

	second, err := authority.Open(dir, clock)
	require.NoError(t, err)
	require.NotEqual(t, first.PEM(), second.PEM())
	_, err = c.Verify(x509.VerifyOptions{Roots: second.Pool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	require.NoError(t, err)
}
