package packages

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
	"golang.org/x/mod/semver"
)

const (
	maxRefused = 16  // packages of an unfit offer that are answered one by one
	maxName    = 256 // bytes of a name, a version or a hash
)

// candidate is a package that may be installed, as far as its offer shows.
type candidate struct {
	identity
	source    *url.URL
	headers   http.Header
	signature []byte
}

// condemned is an error that lies in the package: the same package is not tried again.
type condemned struct{ error }

func (c condemned) Unwrap() error { return c.error }

// fit finds the one package of an offer, or says what is wrong with the offer.
func fit(offer *protobufs.PackagesAvailable) (string, *protobufs.PackageAvailable, error) {
	for name, p := range offer.Packages {
		switch {
		case len(offer.Packages) > 1:
			return "", nil, fmt.Errorf("this agent installs one package, %s; %d were offered, and none is installed", Name, len(offer.Packages))
		case name != "" && name != Name:
			return "", nil, fmt.Errorf("this agent installs one package, %s, and no other", Name)
		case p.GetType() != protobufs.PackageType_PackageType_TopLevel:
			return "", nil, errors.New("this agent installs no addons")
		case len(p.GetHash()) == 0 || len(p.Hash) > maxName || len(p.Version) > maxName:
			return "", nil, errors.New("the package has no hash, or its hash or version is too long")
		default:
			return name, p, nil
		}
	}
	return "", nil, nil
}

// refusals answers each package of an unfit offer.
func refusals(offer *protobufs.PackagesAvailable, why error) []refusal {
	var out []refusal
	for name, p := range offer.Packages {
		if len(name) <= maxName && len(p.GetVersion()) <= maxName && len(p.GetHash()) <= maxName {
			out = append(out, refusal{Name: name, Version: p.GetVersion(), Hash: p.GetHash(), Error: why.Error()})
		}
	}
	slices.SortFunc(out, func(a, b refusal) int { return strings.Compare(a.Name, b.Name) })
	return out[:min(len(out), maxRefused)]
}

// examine makes a candidate of the package, without any I/O.
func (k keyring) examine(id identity, p *protobufs.PackageAvailable) (*candidate, error) {
	c := &candidate{identity: id, signature: p.File.GetSignature(), headers: http.Header{}}
	if len(c.Content) != sha256.Size {
		return nil, fmt.Errorf("the content_hash has %d bytes; SHA-256 has %d", len(c.Content), sha256.Size)
	}
	u, err := url.Parse(p.File.GetDownloadUrl())
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the download_url is no http or https URL") // the cause would quote it, and with it a token
	}
	c.source = u
	for _, h := range p.File.GetHeaders().GetHeaders() {
		c.headers.Add(h.GetKey(), h.GetValue())
	}
	return c, k.parse(c.signature, c.Version)
}

// checkVersion keeps the server from bringing back an older executable that was signed once: versions go up, or back to the
// very file that was here before.
func (m *Manager) checkVersion(c *candidate) error {
	if m.opts.AllowDowngrade || bytes.Equal(c.Content, m.rec.Replaced) {
		return nil
	}
	offered, running := "v"+strings.TrimPrefix(c.Version, "v"), "v"+strings.TrimPrefix(m.opts.Version, "v")
	switch {
	case !semver.IsValid(offered) || !semver.IsValid(running):
		return fmt.Errorf("cannot tell whether %q is older than %q, which runs: not semantic versions, and downgrades are not allowed", c.Version, m.opts.Version)
	case semver.Compare(offered, running) < 0:
		return fmt.Errorf("%s is older than %s, which runs, and downgrades are not allowed", c.Version, m.opts.Version)
	default:
		return nil
	}
}
