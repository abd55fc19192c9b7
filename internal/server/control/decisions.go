package control

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// versionKey names a version.
type versionKey struct {
	name   string
	number int
}

// loadDecisions reads configurations and unfinished rollouts. It is called before anything else happens.
func (c *Control) loadDecisions(ctx context.Context) error {
	configurations, err := c.store.ListConfigurations(ctx)
	if err != nil {
		return err
	}
	unfinished, err := c.store.ListRollouts(ctx, store.RolloutQuery{Unfinished: true, Limit: 1000})
	if err != nil {
		return err
	}
	for _, conf := range configurations {
		c.released[conf.Name] = conf
		if err := c.need(ctx, conf.Name, conf.Released.Version); err != nil {
			return err
		}
	}
	for _, r := range unfinished {
		c.rollouts[r.ID] = r
		if err := c.need(ctx, r.Configuration, r.To.Version); err != nil {
			return err
		}
	}
	c.apply()
	return nil
}

// need makes sure that a version is in memory; number 0 is none. The caller holds decide.
func (c *Control) need(ctx context.Context, name string, number int) error {
	key := versionKey{name, number}
	if number == 0 || c.versions[key] != nil {
		return nil
	}
	v, err := c.store.Version(ctx, name, number)
	if err != nil {
		return err
	}
	c.versions[key] = &v
	return nil
}

// apply makes what was decided hold: for every agent the desired set is computed anew. The caller holds decide.
func (c *Control) apply() {
	used := map[versionKey]*fleet.Version{}
	place := func(name string, r fleet.Release) fleet.Placement {
		key := versionKey{name, r.Version}
		v := c.versions[key]
		if v != nil {
			used[key] = v
		}
		return fleet.Placement{Version: v, Salt: r.Salt}
	}
	var deployments []fleet.Deployment
	for _, name := range slices.Sorted(maps.Keys(c.released)) {
		d := fleet.Deployment{Released: place(name, c.released[name].Released)}
		for _, r := range c.rollouts {
			if r.Configuration == name {
				d.Rollout, d.Next = r, place(name, r.To)
			}
		}
		if d.Released.Version != nil || d.Rollout != nil {
			deployments = append(deployments, d)
		}
	}
	c.versions = used
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deployments = deployments
	c.desireAll()
}

// decided is the context of a write that a person has asked for: one that hangs up half-way must not leave memory and store at odds.
func decided(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
}

// SaveConfiguration is part of api.Control.
func (c *Control) SaveConfiguration(ctx context.Context, actor string, v fleet.Version, expected int) (fleet.Version, error) {
	ctx, cancel := decided(ctx)
	defer cancel()
	if err := v.Validate(); err != nil {
		return fleet.Version{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	c.decide.Lock()
	defer c.decide.Unlock()
	v.Author, v.CreatedAt = actor, c.now()
	saved, err := c.store.SaveVersion(ctx, v, expected, fleet.Event{Time: v.CreatedAt, Actor: actor, Kind: fleet.ConfigurationSaved, Configuration: v.Configuration})
	if err != nil {
		return fleet.Version{}, err
	}
	conf := c.released[saved.Configuration]
	conf.Name, conf.Latest = saved.Configuration, saved.Number
	c.released[saved.Configuration] = conf
	return saved, nil
}

// DeleteConfiguration is part of api.Control.
func (c *Control) DeleteConfiguration(ctx context.Context, actor, name string) error {
	ctx, cancel := decided(ctx)
	defer cancel()
	c.decide.Lock()
	defer c.decide.Unlock()
	event := fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.ConfigurationDeleted, Configuration: name}
	if err := c.store.DeleteConfiguration(ctx, name, event); err != nil {
		return err
	}
	delete(c.released, name)
	c.apply()
	return nil
}
