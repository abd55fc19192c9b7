package packagedir

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
)

// Prefix is of the paths that ServeHTTP answers.
const Prefix = "/packages/"

// Offer makes the offer of a version to an agent of a platform. baseURL is where agents reach this server; headers are sent along
// with the download, such as a token. ErrNoPackage if there is no such file.
//
// The hashes say what is offered (type, version, content, signature) and not where it is: an agent that has a package, or failed
// with it, does not begin anew because a server moved or a token changed.
func (d *Dir) Offer(version, goos, goarch, baseURL string, headers http.Header) (*protobufs.PackagesAvailable, error) {
	d.mu.RLock()
	f, ok := d.files[path.Join(version, goos+"-"+goarch, Name)]
	d.mu.RUnlock()
	if !ok || f.version != version {
		return nil, fmt.Errorf("%s %.100q for %.100s/%.100s: %w", Name, version, goos, goarch, ErrNoPackage)
	}
	base, err := url.Parse(baseURL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("the base URL of packages must be http or https, with a host")
	}
	p := &protobufs.PackageAvailable{
		Type: protobufs.PackageType_PackageType_TopLevel, Version: version, Hash: f.hash(),
		File: &protobufs.DownloadableFile{
			DownloadUrl: base.JoinPath(Prefix, f.path).String(), ContentHash: f.content, Signature: f.signature, Headers: headersOf(headers),
		},
	}
	return &protobufs.PackagesAvailable{
		Packages: map[string]*protobufs.PackageAvailable{Name: p}, AllPackagesHash: hashOf([]byte(Name), p.Hash),
	}, nil
}

func (f *file) hash() []byte {
	return hashOf([]byte{byte(protobufs.PackageType_PackageType_TopLevel)}, []byte(f.version), f.content, f.signature)
}

// hashOf takes the lengths in, so that no two lists of parts are one.
func hashOf(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}

// headersOf are in the order of their keys: an offer that is the same must look the same.
func headersOf(headers http.Header) *protobufs.Headers {
	if len(headers) == 0 {
		return nil
	}
	all := &protobufs.Headers{}
	for key, values := range headers {
		for _, v := range values {
			all.Headers = append(all.Headers, &protobufs.Header{Key: key, Value: v})
		}
	}
	slices.SortStableFunc(all.Headers, func(a, b *protobufs.Header) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// ServeHTTP serves the files that may be offered, whole or in ranges, under Prefix, and nothing else: no signatures, no folders. A file
// that is not the one that was verified is not there until Reload.
func (d *Dir) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "use GET", http.StatusMethodNotAllowed)
		return
	}
	name, under := strings.CutPrefix(r.URL.Path, Prefix)
	d.mu.RLock()
	f, ok := d.files[name]
	d.mu.RUnlock()
	if !ok || !under {
		http.NotFound(w, r)
		return
	}
	opened, info, err := openRegular(d.root, f.path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer func() { _ = opened.Close() }()
	if info.Size() != f.size || !info.ModTime().Equal(f.modified) {
		http.Error(w, "the file has changed since it was verified", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Etag", `"`+hex.EncodeToString(f.content)+`"`) // makes a range never one of another file
	http.ServeContent(w, r, "", f.modified, opened)
}
