package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/collie-otel/collie/internal/statefile"
)

// The files of an authority, in its directory.
const (
	KeyFile         = "ca-key.pem"
	CertificateFile = "ca.pem"
)

const (
	typeCertificate = "CERTIFICATE"
	typeKey         = "PRIVATE KEY"

	lifetime = 10 * 365 * 24 * time.Hour
	// renewBefore is before the end of the authority's certificate. The new one has the same name and key: what was signed under
	// the old one stays valid.
	renewBefore = 2 * 365 * 24 * time.Hour

	wayOut = "restore both files from a backup, or move both away to begin anew (every agent then needs a new certificate)"
)

// Open loads the authority in the directory, or makes one if neither of its files is there. It never replaces what it cannot
// read. now is the clock, read at each Sign.
func Open(dir string, now func() time.Time) (*Authority, error) {
	a := &Authority{now: now}
	keyPath, path := filepath.Join(dir, KeyFile), filepath.Join(dir, CertificateFile)
	certificate, err := loadCertificate(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a.key, err = loadKey(keyPath)
	switch {
	case errors.Is(err, fs.ErrNotExist) && certificate != nil:
		return nil, fmt.Errorf("authority %s: there is a certificate, but not its key: %s: %w", keyPath, wayOut, err)
	case errors.Is(err, fs.ErrNotExist):
		a.key, err = newKey(keyPath)
	}
	if err != nil {
		return nil, err
	}
	if certificate != nil && !a.key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("authority %s: the certificate is of another key than %s: %s", path, KeyFile, wayOut)
	}
	if certificate == nil || now().After(certificate.NotAfter.Add(-renewBefore)) {
		certificate, err = newCertificate(path, a.key, now())
	}
	a.certificate = certificate
	return a, err
}

func loadCertificate(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, typeCertificate)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w: %s", path, err, wayOut)
	}
	if !certificate.IsCA {
		return nil, fmt.Errorf("authority %s: this is no certificate of an authority: %s", path, wayOut)
	}
	return certificate, nil
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path, typeKey)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w: %s", path, err, wayOut)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("authority %s: want an ECDSA key, not %T: %s", path, parsed, wayOut)
	}
	if runtime.GOOS == "windows" {
		return key, nil // modes say nothing there
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, fmt.Errorf("authority %s: others must not read the key; make it your own: %w", path, err)
	}
	return key, nil
}

// readPEM returns fs.ErrNotExist if there is no file.
func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", path, err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("authority %s: it is damaged, or no PEM block of type %s: %s", path, kind, wayOut)
	}
	return block.Bytes, nil
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", path, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = statefile.Replace(path, encode(typeKey, der))
	}
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", path, err)
	}
	return key, nil
}

func newCertificate(path string, key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject: nameOf("collie client authority"), NotBefore: now.Add(-backdated), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err == nil {
		err = statefile.Replace(path, encode(typeCertificate, der))
	}
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", path, err)
	}
	return x509.ParseCertificate(der)
}
