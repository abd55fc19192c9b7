package remoteconfig

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/overlay"
)

// base is the local configuration file, as it was read once.
type base struct {
	conf map[string]any
	sum  [sha256.Size]byte
	// extension is the id of the OpAMP extension, keep the ids of those that it needs: remote configuration cannot
	// remove or change them.
	extension string
	keep      []string
	plaintext bool // the agent is connected without TLS
	local     local
}

// local is what the provider must know of the extension's configuration before anything runs.
type local struct {
	InstanceUID string `mapstructure:"instance_uid"`
	Storage     struct {
		Directory string `mapstructure:"directory"`
	} `mapstructure:"storage"`
	RemoteConfig Settings `mapstructure:"remote_config"`
	Capabilities struct {
		AcceptsRemoteConfig bool `mapstructure:"accepts_remote_config"`
	} `mapstructure:"capabilities"`
}

// DefaultDirectory is where state is kept unless storage::directory says otherwise.
const DefaultDirectory = "/var/lib/otelcol-collie/opamp"

// readBase reads the file and finds in it what the agent needs; references are resolved there and nowhere else.
func readBase(ctx context.Context, path string) (*base, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the base configuration: %w", err)
	}
	retrieved, err := confmap.NewRetrievedFromYAML(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	conf, err := retrieved.AsConf()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b := &base{conf: conf.ToStringMap(), sum: sha256.Sum256(data)}
	if err := b.find(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// find looks for the one OpAMP extension that is in use.
func (b *base) find(ctx context.Context) error {
	const hint = "the scheme opamp: needs the extension opamp with its server under extensions, and opamp in service::extensions"
	extensions, ok := b.conf["extensions"].(map[string]any)
	if !ok {
		return errors.New(hint)
	}
	service, _ := b.conf["service"].(map[string]any)
	inUse, _ := service["extensions"].([]any)
	for _, entry := range inUse {
		id, _ := entry.(string)
		if kind, _, _ := strings.Cut(id, "/"); strings.TrimSpace(kind) != dryrun.Scheme {
			continue
		}
		if b.extension != "" {
			return fmt.Errorf("two OpAMP extensions, %s and %s: the scheme opamp: works with one", b.extension, id)
		}
		b.extension = id
	}
	section, ok := extensions[b.extension].(map[string]any)
	if b.extension == "" || !ok {
		return errors.New(hint)
	}
	return b.resolve(ctx, section)
}

// remote are the files of a generation, where remote configuration is accepted; elsewhere they wait until it is again.
func (b *base) remote(g *Generation) []overlay.File {
	if !b.local.Capabilities.AcceptsRemoteConfig {
		return nil
	}
	return g.files()
}

// checksum stands for the content of the file.
func (b *base) checksum() string { return hex.EncodeToString(b.sum[:]) }

// isFor says whether this is the id of the OpAMP extension, however it is written in the file.
func (b *base) isFor(id component.ID) bool {
	var own component.ID
	return own.UnmarshalText([]byte(b.extension)) == nil && own == id
}

// resolve decodes the parts of the extension's section that are needed here.
func (b *base) resolve(ctx context.Context, section map[string]any) error {
	part := map[string]any{}
	for _, key := range []string{"storage", "remote_config", "capabilities", "server", "instance_uid"} {
		if value, ok := section[key]; ok {
			part[key] = value
		}
	}
	resolver, err := confmap.NewResolver(dryrun.Source{URIs: []string{dryrun.Scheme + ":"}, Candidate: part}.Settings().ResolverSettings)
	if err != nil {
		return err
	}
	conf, err := resolver.Resolve(ctx)
	if err = errors.Join(err, resolver.Shutdown(ctx)); err != nil {
		return fmt.Errorf("extensions::%s: %w", b.extension, err)
	}
	b.local.Storage.Directory, b.local.RemoteConfig = DefaultDirectory, DefaultSettings()
	b.local.Capabilities.AcceptsRemoteConfig = true
	if err := conf.Unmarshal(&b.local, confmap.WithIgnoreUnused()); err != nil {
		return fmt.Errorf("extensions::%s: %w", b.extension, err)
	}
	if err := b.local.RemoteConfig.Validate(); err != nil {
		return fmt.Errorf("extensions::%s::remote_config: %w", b.extension, err)
	}
	for _, transport := range []string{"ws", "http"} {
		endpoint, _ := conf.Get("server::" + transport + "::endpoint").(string)
		b.plaintext = b.plaintext || strings.HasPrefix(endpoint, "ws:") || strings.HasPrefix(endpoint, "http:")
		if auth, ok := conf.Get("server::" + transport + "::auth").(string); ok && auth != "" {
			b.keep = append(b.keep, auth)
		}
	}
	return nil
}

// secondAgent finds an OpAMP extension in a remote configuration that is not the agent itself: it would take the agent's
// place, at another server. Empty is none.
func (b *base) secondAgent(remote map[string]any) string {
	extensions, _ := remote["extensions"].(map[string]any)
	service, _ := remote["service"].(map[string]any)
	inUse, _ := service["extensions"].([]any)
	ids := slices.Sorted(maps.Keys(extensions))
	for _, entry := range inUse {
		if id, ok := entry.(string); ok {
			ids = append(ids, id)
		}
	}
	var own component.ID
	_ = own.UnmarshalText([]byte(b.extension)) // the Collector would have refused it
	for _, text := range ids {
		var id component.ID
		if id.UnmarshalText([]byte(text)) == nil && id.Type().String() == dryrun.Scheme && id != own {
			return text
		}
	}
	return ""
}
