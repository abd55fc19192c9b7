package packagedir

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"aead.dev/minisign"
)

// maxSignature is that of the agents; a signature has about 300 bytes.
const maxSignature = 4096

func parseKeys(texts []string) (keys []minisign.PublicKey, err error) {
	if len(texts) == 0 {
		return nil, errors.New("no public keys: without them no package can be verified, and none is offered")
	}
	for i, text := range texts {
		var key minisign.PublicKey
		// The text is never quoted: somebody may have pasted the secret key.
		if e := key.UnmarshalText([]byte(strings.TrimSpace(text))); e != nil {
			err = errors.Join(err, fmt.Errorf("public key %d: %w", i+1, e))
		}
		keys = append(keys, key)
	}
	return keys, err
}

// read verifies the file of a version and platform.
func (d *Dir) read(version, platform string) (file, error) {
	system, arch, _ := strings.Cut(platform, "-")
	f := file{version: version, os: system, arch: arch, path: path.Join(version, platform, Name)}
	if !validVersion.MatchString(version) || !validPlatform.MatchString(platform) {
		return f, errors.New("the folders must be named <version>/<os>-<arch>, as in 1.2.3/linux-amd64")
	}
	opened, info, err := openRegular(d.root, f.path)
	if err != nil {
		return f, err
	}
	defer func() { _ = opened.Close() }()
	f.size, f.modified = info.Size(), info.ModTime()
	if f.signature, err = readSignature(d.root, f.path+".minisig"); err != nil {
		return f, err
	}
	f.content, err = d.verify(opened, f)
	return f, err
}

// verify returns the SHA-256 of a file whose signature is by one of the keys, and for this version and platform.
func (d *Dir) verify(r io.Reader, f file) ([]byte, error) {
	var s minisign.Signature
	if err := s.UnmarshalText(f.signature); err != nil {
		return nil, fmt.Errorf("%s.minisig is no minisign signature: %w", Name, err)
	}
	if s.Algorithm != minisign.HashEdDSA {
		return nil, errors.New("the signature is not prehashed: sign with minisign 0.10 or newer, or with -H")
	}
	if want := fmt.Sprintf("%s %s %s/%s", Name, f.version, f.os, f.arch); s.TrustedComment != want {
		return nil, fmt.Errorf("the signature is for %.200q: sign with -t %q", s.TrustedComment, want)
	}
	known := false
	for _, key := range d.keys {
		known = known || key.ID() == s.KeyID
	}
	if !known {
		return nil, fmt.Errorf("signed by the key %016X, which is not among the public keys", s.KeyID)
	}
	sum, signed := sha256.New(), minisign.NewReader(r)
	if _, err := io.Copy(sum, signed); err != nil {
		return nil, err
	}
	for _, key := range d.keys {
		if signed.Verify(key, f.signature) {
			return sum.Sum(nil), nil
		}
	}
	return nil, errors.New("the signature does not belong to the file: it is damaged, was changed, or was copied half")
}

func readSignature(root *os.Root, name string) ([]byte, error) {
	f, _, err := openRegular(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the file is not signed: %w", err)
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	if len(text) > maxSignature {
		return nil, fmt.Errorf("%s.minisig has more than %d bytes: it is no signature", Name, maxSignature)
	}
	return text, err
}

// openRegular refuses what could block or is no file. The root refuses links that lead out of the directory.
func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	info, err := root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}
