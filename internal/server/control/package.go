package control

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
)

// preparePackage adds the package that the agent lacks to an offer. The caller holds mu.
func (c *Control) preparePackage(e *entry, offer *opampserver.Offer) {
	a := &e.agent
	if c.packages == nil || len(c.packageOffers) == 0 || !a.Capabilities.Has(fleet.AcceptsPackages) {
		return
	}
	attributes := a.Attributes()
	version := ""
	for _, w := range c.packageOffers {
		if w.selector.Matches(attributes) {
			version = w.value.Version
		}
	}
	os, arch, ok := c.packages.PlatformOf(attributes)
	if version == "" || !ok {
		return
	}
	header := http.Header{}
	if c.metricsToken != nil {
		header.Set("Authorization", "Bearer "+c.metricsToken(a.UID))
	}
	available, err := c.packages.Offer(version, os, arch, httpBase(e.peer.base), header)
	if err != nil {
		c.log.Warn("a package cannot be offered", "instance_uid", e.uid, "version", version, "platform", os+"/"+arch, "error", err)
		return
	}
	hash := hex.EncodeToString(available.AllPackagesHash)
	if a.PackagesReported == hash || a.PackagesOffered == hash && !e.lost && !a.Capabilities.Has(fleet.ReportsPackageStatuses) {
		return
	}
	a.PackagesOffered = hash
	offer.Packages = available
	c.tell(e, fleet.PackageOffered, hash, version)
}

// packageStatuses takes up what became of packages. The caller holds mu.
func (c *Control) packageStatuses(e *entry, u *update) {
	before := map[string]fleet.PackageStatus{}
	for _, p := range e.agent.Packages {
		before[p.Name] = p
	}
	c.notice(e, e.agent.PackagesReported, u.packagesHash, e.agent.PackagesOffered)
	e.agent.Packages, e.agent.PackagesReported = u.packages, u.packagesHash
	for _, p := range u.packages {
		switch old := before[p.Name]; {
		case old.Status == p.Status && old.Error == p.Error:
		case p.Status == "InstallFailed":
			c.tell(e, fleet.PackageFailed, u.packagesHash, p.OfferedVersion+": "+p.Error)
		case p.Status == "Installed" && old.Status != "":
			c.tell(e, fleet.PackageInstalled, u.packagesHash, p.Version)
		}
	}
}

// httpBase is the same address for HTTP.
func httpBase(base string) string {
	if rest, ok := strings.CutPrefix(base, "ws"); ok {
		return "http" + rest
	}
	return base
}

// selfDestination is where an agent sends its own metrics when they are for this server. The caller holds mu.
func (c *Control) selfDestination(e *entry) *apiv1.Destination {
	if c.recorder == nil || e.peer.base == "" {
		return nil
	}
	d := &apiv1.Destination{Endpoint: httpBase(e.peer.base) + "/v1/metrics", CA: c.ca}
	if c.metricsToken != nil {
		d.Headers = map[string]string{"Authorization": "Bearer " + c.metricsToken(e.agent.UID)}
	}
	return d
}

// loadComponents reads which sets of components are known. It is called before anything else happens.
func (c *Control) loadComponents(ctx context.Context) error {
	documents, err := c.store.Documents(ctx, kindComponents)
	for _, d := range documents {
		c.components[d.Name] = struct{}{}
	}
	return err
}

// maxComponents bounds the sets of components that are kept, and maxComponentsSize each, in bytes: a large distribution has 20 KiB.
const (
	maxComponents     = 1000
	maxComponentsSize = 128 << 10
)

// explained says whether the components behind a hash are known, so that only one agent of a kind is asked. The caller holds mu.
func (c *Control) explained(hash string) bool {
	_, known := c.components[hash]
	return known || len(c.components) >= maxComponents
}

// explain keeps the components of an agent under their hash. The caller holds mu.
func (c *Control) explain(r *opampserver.Report) {
	hash := hex.EncodeToString(r.Components.Hash)
	if hash == "" || c.explained(hash) {
		return
	}
	kinds := map[string][]string{}
	for kind, details := range r.Components.Components {
		kinds[text(kind)] = names(details)
	}
	data, err := json.Marshal(kinds)
	if err != nil {
		return
	}
	c.components[hash] = struct{}{}
	if len(data) > maxComponentsSize { // known, and not shown
		return
	}
	c.done.Go(func() {
		ctx, cancel := decided(context.Background())
		defer cancel()
		if err := c.store.PutDocument(ctx, kindComponents, hash, data); err != nil {
			c.report("write components", err)
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.components, hash)
		}
	})
}

func names(details *protobufs.ComponentDetails) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(details.GetSubComponentMap())) {
		list = append(list, text(name))
	}
	return list
}

// Components is part of api.Control.
func (c *Control) Components(ctx context.Context, uid string) (apiv1.Components, error) {
	c.mu.Lock()
	e, err := c.find(uid)
	hash := ""
	if err == nil {
		hash = e.agent.AvailableComponentsHash
	}
	c.mu.Unlock()
	if err != nil {
		return apiv1.Components{}, err
	}
	documents, err := c.store.Documents(ctx, kindComponents)
	if err != nil {
		return apiv1.Components{}, err
	}
	for _, d := range documents {
		if d.Name == hash {
			found := apiv1.Components{Hash: hash, Kinds: map[string][]string{}}
			return found, json.Unmarshal(d.Data, &found.Kinds)
		}
	}
	return apiv1.Components{}, fmt.Errorf("the components of %s: %w", uid, store.ErrNotFound)
}
