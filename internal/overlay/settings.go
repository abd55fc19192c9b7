package overlay

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-telemetry/opamp-go/protobufs"
	"golang.org/x/net/http/httpguts"
)

// Files collects the files that an overlay refers to. Names come from the contents: a new certificate is a new file, so the
// running configuration keeps its own until nothing refers to it. Whoever applies the overlay writes them first, mode 0600
// (there are private keys among them), and removes from Dir what the configuration that runs does not name.
type Files struct {
	// Dir is the directory that the overlay's paths start with.
	Dir      string
	contents map[string][]byte
}

// WantedFile is one file that must be in Files.Dir.
type WantedFile struct {
	Name    string
	Content []byte
}

// Wanted returns the collected files in name order.
func (f *Files) Wanted() []WantedFile {
	var wanted []WantedFile
	for _, name := range slices.Sorted(maps.Keys(f.contents)) {
		wanted = append(wanted, WantedFile{name, slices.Clone(f.contents[name])})
	}
	return wanted
}

// add returns the path of a file with this content, escaped for a configuration.
func (f *Files) add(content []byte) (string, error) {
	if f == nil || f.Dir == "" {
		return "", errors.New("there is no directory for certificates")
	}
	sum := sha256.Sum256(content)
	name := hex.EncodeToString(sum[:]) + ".pem"
	if f.contents == nil {
		f.contents = map[string][]byte{}
	}
	f.contents[name] = slices.Clone(content)
	return escape(filepath.Join(f.Dir, name)), nil
}

// escape makes a value survive the Collector's resolution of references.
func escape(value string) string {
	return strings.ReplaceAll(value, "$", "$$")
}

// checkHeaders refuses what an HTTP client would refuse when it sends, or would send otherwise than offered.
func checkHeaders(headers *protobufs.Headers) error {
	seen := map[string]bool{}
	for _, h := range headers.GetHeaders() {
		name := strings.ToLower(h.GetKey())
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return fmt.Errorf("header %.100q is not a valid name", h.GetKey())
		case !utf8.ValidString(h.GetValue()) || !httpguts.ValidHeaderFieldValue(h.GetValue()):
			return fmt.Errorf("header %s: its value has bytes that a header cannot have", h.GetKey())
		case seen[name]:
			return fmt.Errorf("header %s is there twice", h.GetKey())
		}
		seen[name] = true
	}
	return nil
}

// checkTLS refuses what an offer may not weaken, and a CA that is none.
func checkTLS(t *protobufs.TLSConnectionSettings) error {
	if t.GetInsecureSkipVerify() {
		return errors.New("tls: insecure_skip_verify is not accepted from an offer")
	}
	for _, version := range []string{t.GetMinVersion(), t.GetMaxVersion()} {
		if !slices.Contains([]string{"", "1.2", "1.3"}, version) {
			return fmt.Errorf("tls: version %.20q is not accepted; there are 1.2 and 1.3", version)
		}
	}
	if t.GetMinVersion() == "1.3" && t.GetMaxVersion() == "1.2" {
		return errors.New("tls: min_version is above max_version")
	}
	for _, name := range t.GetCipherSuites() {
		if !slices.ContainsFunc(tls.CipherSuites(), func(suite *tls.CipherSuite) bool { return suite.Name == name }) {
			return fmt.Errorf("tls: cipher suite %.60q is not known or not secure", name)
		}
	}
	if ca := t.GetCaPemContents(); ca != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca)) {
		return errors.New("tls: ca_pem_contents has no certificate")
	}
	return nil
}

// checkCertificate refuses a client certificate that the Collector could not load. The signing CA in it is for others: the
// agent does not come to trust it (opamp.proto, TLSCertificate.ca_cert).
func checkCertificate(c *protobufs.TLSCertificate) error {
	if c == nil {
		return nil
	}
	// The library's error names neither key nor certificate contents.
	if _, err := tls.X509KeyPair(c.GetCert(), c.GetPrivateKey()); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return nil
}

func hasProxy(p *protobufs.ProxyConnectionSettings) bool {
	return p.GetUrl() != "" || len(p.GetConnectHeaders().GetHeaders()) > 0
}
