package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// step looks at all rollouts, stores what they decide, and makes it hold.
func (c *Control) step(ctx context.Context) error {
	c.decide.Lock()
	defer c.decide.Unlock()
	if len(c.rollouts) == 0 {
		return nil
	}
	var errs []error
	changed := false
	for _, id := range slices.Sorted(maps.Keys(c.rollouts)) {
		did, err := c.stepOne(ctx, id)
		changed = changed || did
		if err != nil {
			errs = append(errs, fmt.Errorf("rollout %s: %w", id, err))
		}
	}
	if changed {
		c.apply()
	}
	return errors.Join(errs...)
}

// stepOne says whether anything but the clock changed.
func (c *Control) stepOne(ctx context.Context, id string) (changed bool, err error) {
	next := c.rollouts[id].Clone()
	agents, deployments := c.photograph()
	events, changed := next.Step(c.now(), fleet.Candidates(agents, deployments, id))
	if !changed {
		c.replace(next)
		return false, nil
	}
	// What the agents said is written before what follows from it.
	if err := c.save(ctx); err != nil {
		return false, err
	}
	if err := c.store.SaveRollout(ctx, next, events...); err != nil {
		return false, c.reread(ctx, id, err)
	}
	c.took(next)
	return true, nil
}

// photograph returns the fleet at one moment, so that agents need not wait while a rollout thinks about it.
func (c *Control) photograph() ([]*fleet.Agent, []fleet.Deployment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	copies := make([]fleet.Agent, 0, len(c.agents))
	agents := make([]*fleet.Agent, 0, len(c.agents))
	for _, e := range c.agents {
		copies = append(copies, e.agent)
		agents = append(agents, &copies[len(copies)-1])
	}
	return agents, c.deployments
}

// replace puts a rollout in the place of the same one a moment ago, where only its clock has moved on.
func (c *Control) replace(next *fleet.Rollout) {
	c.rollouts[next.ID] = next
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deployments = slices.Clone(c.deployments)
	for i := range c.deployments {
		if r := c.deployments[i].Rollout; r != nil && r.ID == next.ID {
			c.deployments[i].Rollout = next
		}
	}
}

// took takes up a rollout as it is stored now. The caller holds decide and calls apply.
func (c *Control) took(r *fleet.Rollout) {
	c.rollouts[r.ID] = r
	if !r.State.Final() {
		return
	}
	delete(c.rollouts, r.ID)
	if r.State == fleet.RolloutDone {
		conf := c.released[r.Configuration]
		conf.Released = r.To
		c.released[r.Configuration] = conf
	}
}

// reread takes up what is stored if somebody else was faster.
func (c *Control) reread(ctx context.Context, id string, err error) error {
	if !errors.Is(err, store.ErrConflict) {
		return err
	}
	stored, readErr := c.store.Rollout(ctx, id)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	c.took(stored)
	c.apply()
	return err
}

// StartRollout is part of api.Control.
func (c *Control) StartRollout(ctx context.Context, actor, name string, version int, spec fleet.RolloutSpec) (*fleet.Rollout, error) {
	ctx, cancel := decided(ctx)
	defer cancel()
	c.decide.Lock()
	defer c.decide.Unlock()
	conf, err := c.store.Configuration(ctx, name)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		version = conf.Latest
	}
	id := "r" + strings.ToLower(rand.Text()[:9])
	r, event, err := fleet.NewRollout(id, conf, version, spec, actor, c.now())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if err := c.need(ctx, name, version); err != nil {
		return nil, err
	}
	if err := c.store.CreateRollout(ctx, r, event); err != nil {
		return nil, err
	}
	c.released[name] = conf
	c.took(r)
	c.apply()
	return r.Clone(), nil
}

// PauseRollout is part of api.Control.
func (c *Control) PauseRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error) {
	return c.command(ctx, id, func(r *fleet.Rollout) ([]fleet.Event, error) {
		event, err := r.Pause(c.now(), actor)
		return []fleet.Event{event}, err
	})
}

// ResumeRollout is part of api.Control.
func (c *Control) ResumeRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error) {
	return c.command(ctx, id, func(r *fleet.Rollout) ([]fleet.Event, error) {
		event, err := r.Resume(c.now(), actor)
		return []fleet.Event{event}, err
	})
}

// AbortRollout is part of api.Control.
func (c *Control) AbortRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error) {
	return c.command(ctx, id, func(r *fleet.Rollout) ([]fleet.Event, error) { return r.Abort(c.now(), actor) })
}

// command changes a rollout as a person wants it.
func (c *Control) command(ctx context.Context, id string, change func(*fleet.Rollout) ([]fleet.Event, error)) (*fleet.Rollout, error) {
	ctx, cancel := decided(ctx)
	defer cancel()
	c.decide.Lock()
	defer c.decide.Unlock()
	r := c.rollouts[id]
	if r == nil { // it may be over
		stored, err := c.store.Rollout(ctx, id)
		if err != nil {
			return nil, err
		}
		r = stored
	}
	next := r.Clone()
	events, err := change(next)
	if err != nil {
		return nil, err
	}
	if err := c.store.SaveRollout(ctx, next, events...); err != nil {
		return nil, c.reread(ctx, id, err)
	}
	c.took(next)
	c.apply()
	return next.Clone(), nil
}
