package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// A wish is something that the agents of a selector should have beside configurations: connection settings, or a package. Wishes
// are documents of the store, and all of them are in memory, the least important first.

// The kinds of documents.
const (
	kindConnection = "connection"
	kindPackage    = "package"
	kindComponents = "components"
)

type wish[T any] struct {
	name     string
	priority int
	selector fleet.Selector
	value    T
}

// loadWishes reads what is stored. The caller holds decide, or nothing else has happened yet.
func (c *Control) loadWishes(ctx context.Context) error {
	connections, err := readWishes(ctx, c.store, kindConnection, func(v apiv1.Connection) (string, int, string) { return v.Name, v.Priority, v.Selector })
	if err != nil {
		return err
	}
	packageOffers, err := readWishes(ctx, c.store, kindPackage, func(v apiv1.PackageOffer) (string, int, string) { return v.Name, v.Priority, v.Selector })
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connections, c.packageOffers = connections, packageOffers
	return nil
}

// readDocuments decodes all of a kind, by name; stamp notes when each was written.
func readDocuments[T any](ctx context.Context, s store.Store, kind string, stamp func(*T, time.Time)) ([]T, error) {
	documents, err := s.Documents(ctx, kind)
	if err != nil {
		return nil, err
	}
	values := make([]T, len(documents))
	for i, d := range documents {
		if err := json.Unmarshal(d.Data, &values[i]); err != nil {
			return nil, fmt.Errorf("%s %s: %w", kind, d.Name, err)
		}
		stamp(&values[i], d.UpdatedAt)
	}
	return values, nil
}

func readWishes[T any](ctx context.Context, s store.Store, kind string, of func(T) (name string, priority int, selector string)) ([]wish[T], error) {
	values, err := readDocuments(ctx, s, kind, func(*T, time.Time) {})
	if err != nil {
		return nil, err
	}
	var wishes []wish[T]
	for _, value := range values {
		name, priority, text := of(value)
		selector, err := fleet.ParseSelector(text)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", kind, name, err)
		}
		wishes = append(wishes, wish[T]{name, priority, selector, value})
	}
	slices.SortFunc(wishes, func(a, b wish[T]) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.name, b.name))
	})
	return wishes, nil
}

// saveWish stores a wish and takes all of its kind up again.
func (c *Control) saveWish(ctx context.Context, kind, name, selector string, value any, event fleet.Event) error {
	if err := fleet.ValidateName(name); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if _, err := fleet.ParseSelector(selector); err != nil {
		return fmt.Errorf("%w: selector: %w", store.ErrInvalid, err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return c.changeWishes(ctx, func(ctx context.Context) error { return c.store.PutDocument(ctx, kind, name, data, event) })
}

// changeWishes makes a change and takes it up.
func (c *Control) changeWishes(ctx context.Context, change func(context.Context) error) error {
	ctx, cancel := decided(ctx)
	defer cancel()
	c.decide.Lock()
	defer c.decide.Unlock()
	if err := change(ctx); err != nil {
		return err
	}
	if err := c.loadWishes(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.agents {
		e.unsettle(c.now())
		e.tries = 0
	}
	c.wake()
	return nil
}

// Connections is part of api.Control.
func (c *Control) Connections(ctx context.Context) ([]apiv1.Connection, error) {
	return readDocuments(ctx, c.store, kindConnection, func(v *apiv1.Connection, at time.Time) { v.UpdatedAt = at })
}

// SaveConnection is part of api.Control.
func (c *Control) SaveConnection(ctx context.Context, actor string, v apiv1.Connection) error {
	if err := validateConnection(&v, c.recorder != nil); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	all, err := c.Connections(ctx)
	if err != nil {
		return err
	}
	var before apiv1.Connection
	for _, other := range all {
		if other.Name == v.Name {
			before = other
		}
	}
	if err := restoreSecrets(&v, &before); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return c.saveWish(ctx, kindConnection, v.Name, v.Selector, v, fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.ConnectionSaved, Message: v.Name})
}

// DeleteConnection is part of api.Control. What agents have taken of it stays with them.
func (c *Control) DeleteConnection(ctx context.Context, actor, name string) error {
	return c.changeWishes(ctx, func(ctx context.Context) error {
		return c.store.DeleteDocument(ctx, kindConnection, name, fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.ConnectionDeleted, Message: name})
	})
}

// Packages is part of api.Control.
func (c *Control) Packages(ctx context.Context) (apiv1.Packages, error) {
	list := apiv1.Packages{Packages: []apiv1.Package{}}
	if c.packages != nil {
		list.Packages = c.packages.List()
	}
	var err error
	list.Offers, err = readDocuments(ctx, c.store, kindPackage, func(o *apiv1.PackageOffer, at time.Time) { o.UpdatedAt = at })
	return list, err
}

// SavePackageOffer is part of api.Control.
func (c *Control) SavePackageOffer(ctx context.Context, actor string, o apiv1.PackageOffer) error {
	if c.packages == nil {
		return fmt.Errorf("%w: this server has no folder of packages: start it with --packages-dir", store.ErrInvalid)
	}
	var versions []string
	for _, p := range c.packages.List() {
		versions = append(versions, p.Version)
	}
	if !slices.Contains(versions, o.Version) {
		return fmt.Errorf("%w: there is no package of version %q that is signed: there are %q", store.ErrInvalid, o.Version, versions)
	}
	event := fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.PackageOfferSaved, Message: o.Name + ": " + o.Version}
	return c.saveWish(ctx, kindPackage, o.Name, o.Selector, o, event)
}

// DeletePackageOffer is part of api.Control. Agents keep what they have installed.
func (c *Control) DeletePackageOffer(ctx context.Context, actor, name string) error {
	return c.changeWishes(ctx, func(ctx context.Context) error {
		return c.store.DeleteDocument(ctx, kindPackage, name, fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.PackageOfferDeleted, Message: name})
	})
}

// Throughput is part of api.Control.
func (c *Control) Throughput(_ context.Context, uid string) (apiv1.Series, error) {
	if c.recorder == nil {
		return apiv1.Series{}, store.ErrNotFound
	}
	series, found := c.recorder.Series(uid, c.now())
	if !found {
		return apiv1.Series{}, store.ErrNotFound
	}
	return series, nil
}
