// Package packagedir is a directory of executables that the server may offer to agents (OpAMP packages):
//
//	DIR/<version>/<os>-<arch>/otelcol-collie
//	DIR/<version>/<os>-<arch>/otelcol-collie.minisig
//
// with os and arch as Go names them. The server holds no signing key and signs nothing: what is there was signed elsewhere
// (docs/packages.md), and what is not signed right for its version and platform is reported and neither offered nor served. Agents
// verify for themselves; this package keeps mistakes from reaching them. Who is offered what, and who may download, is left to others.
package packagedir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"aead.dev/minisign"
	"golang.org/x/mod/semver"

	"github.com/collie-otel/collie/internal/apiv1"
)

// Name is the one package there is, and the name of its file.
const Name = "otelcol-collie"

var (
	validVersion  = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+_-]{0,127}$`)
	validPlatform = regexp.MustCompile(`^[a-z0-9]{1,32}-[a-z0-9]{1,32}$`)
)

// ErrNoPackage: there is no such version, or not for this platform.
var ErrNoPackage = errors.New("no such package")

// Dir is what the directory held when it was read last. It is safe for concurrent use.
type Dir struct {
	root *os.Root
	keys []minisign.PublicKey

	reload   sync.Mutex // held by the one who reads the directory
	mu       sync.RWMutex
	files    map[string]file // by path; guarded by mu
	problems []error         // guarded by mu
}

// file is an executable whose signature is right.
type file struct {
	version, os, arch string
	path              string
	size              int64
	modified          time.Time
	content           []byte // SHA-256
	signature         []byte
}

// Open reads the directory; publicKeys are minisign's, each the second line of a .pub file, or all of it. An error means that
// the directory cannot be read or a key is none; single files that are not right are Problems.
func Open(dir string, publicKeys []string) (*Dir, error) {
	keys, err := parseKeys(publicKeys)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("package directory: %w", err)
	}
	d := &Dir{root: root, keys: keys}
	if err := d.Reload(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

// Close closes the directory. Nothing is served afterwards.
func (d *Dir) Close() error { return d.root.Close() }

// Reload reads the directory anew and verifies all of it, every byte: it is for starts and for people, not for requests. What was
// there before is offered until it is done, and goes on to be offered if the directory cannot be read.
func (d *Dir) Reload() error {
	d.reload.Lock()
	defer d.reload.Unlock()
	files, problems := map[string]file{}, []error{}
	versions, err := entries(d.root, ".")
	if err != nil {
		return fmt.Errorf("package directory %s: %w", d.root.Name(), err)
	}
	for _, version := range versions {
		platforms, err := entries(d.root, version)
		if err != nil {
			problems = append(problems, err)
		}
		for _, platform := range platforms {
			f, err := d.read(version, platform)
			if err != nil {
				problems = append(problems, fmt.Errorf("%s/%s: %w", version, platform, err))
				continue
			}
			files[f.path] = f
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files, d.problems = files, problems
	return nil
}

// entries are the names in a folder but hidden ones, which may be those of a copy that is under way.
func entries(root *os.Root, path string) ([]string, error) {
	all, err := fs.ReadDir(root.FS(), path)
	names := make([]string, 0, len(all))
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// List are the packages that may be offered, the newest version first.
func (d *Dir) List() []apiv1.Package {
	d.mu.RLock()
	defer d.mu.RUnlock()
	platforms := map[string][]string{}
	for _, f := range d.files {
		platforms[f.version] = append(platforms[f.version], f.os+"/"+f.arch)
	}
	list := make([]apiv1.Package, 0, len(platforms))
	for version, all := range platforms {
		slices.Sort(all)
		list = append(list, apiv1.Package{Name: Name, Version: version, Platforms: all})
	}
	slices.SortFunc(list, func(a, b apiv1.Package) int {
		return cmp.Or(semver.Compare(semantic(b.Version), semantic(a.Version)), strings.Compare(b.Version, a.Version))
	})
	return list
}

func semantic(version string) string { return "v" + strings.TrimPrefix(version, "v") }

// Problems say what is in the directory and not offered, and why.
func (d *Dir) Problems() []error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Clone(d.problems)
}

// PlatformOf returns the platform of an agent, as Go names it, from its attributes os.type and host.arch (OpenTelemetry semantic
// conventions); false if it does not say.
func PlatformOf(attributes map[string]string) (goos, goarch string, ok bool) {
	goos, goarch = goName(systems, attributes["os.type"]), goName(architectures, attributes["host.arch"])
	return goos, goarch, validPlatform.MatchString(goos + "-" + goarch)
}

// systems and architectures are those that Go names otherwise, and names that people use.
var (
	systems       = map[string]string{"z_os": "zos", "dragonflybsd": "dragonfly", "macos": "darwin"}
	architectures = map[string]string{"arm32": "arm", "x86": "386", "x86_64": "amd64", "aarch64": "arm64", "ppc32": "ppc"}
)

func goName(names map[string]string, name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	return cmp.Or(names[name], name)
}
