package packages

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"aead.dev/minisign"
)

// maxSignature bounds a signature file; one of minisign has about 300 bytes.
const maxSignature = 4096

// errContent is of a file that is not the one that was offered.
var errContent = errors.New("the file's SHA-256 is not the offered content_hash")

// keyring holds the public keys whose signatures are accepted.
type keyring []minisign.PublicKey

// CheckKeys says what is wrong with public keys as they are configured: each the second line of a minisign.pub, or all of it.
// It never quotes one: somebody may have pasted the secret key.
func CheckKeys(texts []string) error {
	_, err := parseKeys(texts)
	return err
}

func parseKeys(texts []string) (keyring, error) {
	var keys keyring
	var errs error
	for i, text := range texts {
		var key minisign.PublicKey
		if err := key.UnmarshalText([]byte(strings.TrimSpace(text))); err != nil {
			errs = errors.Join(errs, fmt.Errorf("public_keys[%d]: %w", i, err))
			continue
		}
		keys = append(keys, key)
	}
	return keys, errs
}

// trustedComment is what the signer must have signed along with the file, so that a signed file of another version, program or
// platform cannot be passed off as this one.
func trustedComment(version string) string {
	return fmt.Sprintf("%s %s %s/%s", Name, version, runtime.GOOS, runtime.GOARCH)
}

// parse refuses, before anything is downloaded, what verify would refuse afterwards. It proves nothing.
func (k keyring) parse(text []byte, version string) error {
	var s minisign.Signature
	switch {
	case len(k) == 0:
		return errors.New("no public keys are configured")
	case len(text) == 0:
		return errors.New("the file is not signed")
	case len(text) > maxSignature:
		return fmt.Errorf("the signature has %d bytes, more than %d", len(text), maxSignature)
	}
	if err := s.UnmarshalText(text); err != nil {
		return fmt.Errorf("the signature is no minisign signature file: %w", err)
	}
	if s.Algorithm != minisign.HashEdDSA {
		return errors.New("the signature is not prehashed: sign with minisign 0.10 or newer, or with -H")
	}
	known := false
	for _, key := range k {
		known = known || key.ID() == s.KeyID
	}
	if !known {
		return fmt.Errorf("signed by the key %016X, which is not among the public keys", s.KeyID)
	}
	if want := trustedComment(version); s.TrustedComment != want {
		return fmt.Errorf("the signature is for %q, not for %q", s.TrustedComment, want)
	}
	return nil
}

// verify proves that the file is what was offered and what the signer meant: content, version and platform.
func (k keyring) verify(ctx context.Context, path string, content, signature []byte, version string) error {
	if err := k.parse(signature, version); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sum, signed := sha256.New(), minisign.NewReader(contextReader{ctx, f})
	if _, err := io.Copy(sum, signed); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), content) {
		return condemned{errContent}
	}
	for _, key := range k {
		if signed.Verify(key, signature) {
			return nil
		}
	}
	return condemned{errors.New("the signature does not belong to the file")}
}

// contextReader ends a long copy when it is no longer wanted.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
