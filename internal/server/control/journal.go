package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

const (
	// batch is how many agents one transaction writes: others wait for it.
	batch = 1000
	// maxEvents bounds the events that wait for a store that does not work. The oldest go first.
	maxEvents = 100_000
	// maxHeld bounds the effective configurations that wait, in bytes: whoever brings one more waits for the store. If that does not work
	// it is not taken up until it comes again.
	maxHeld = 64 << 20
	// maxWritten is how many bytes of effective configurations are written before those that no agent has any more are deleted; else that
	// is done every pruneEvery, within which one agent could fill a disk.
	maxWritten = 1 << 30
)

// pending is what is not written yet. It is guarded by Control.mu.
type pending struct {
	agents map[*entry]struct{}
	bodies map[string][]byte // by content hash
	held   int               // bytes in bodies
	events []fleet.Event
}

func newPending() pending {
	return pending{agents: map[*entry]struct{}{}, bodies: map[string][]byte{}}
}

func (p *pending) agent(e *entry) { p.agents[e] = struct{}{} }

func (p *pending) forget(e *entry) { delete(p.agents, e) }

func (p *pending) event(e fleet.Event) {
	if len(p.events) >= maxEvents {
		p.events = p.events[1:]
	}
	p.events = append(p.events, e)
}

func (p *pending) body(hash string, body []byte) {
	if p.bodies[hash] == nil {
		p.bodies[hash] = body
		p.held += len(body)
	}
}

func (p *pending) isEmpty() bool { return len(p.agents) == 0 && len(p.events) == 0 }

// take returns a part of it as one write, the entries in it, and the health of their components.
func (p *pending) take() (w store.AgentBatch, entries []*entry, trees []tree) {
	taken := map[string]bool{} // many agents have the same one
	for e := range p.agents {
		if len(entries) == batch {
			break
		}
		entries = append(entries, e)
		w.Agents = append(w.Agents, e.agent)
		trees = append(trees, e.components)
		delete(p.agents, e)
		e.touched = false
		if hash := e.agent.EffectiveConfigHash; p.bodies[hash] != nil && !taken[hash] {
			taken[hash] = true
			w.Bodies = append(w.Bodies, p.bodies[hash])
		}
	}
	w.Events, p.events = p.events, nil
	if len(p.agents) == 0 {
		clear(p.bodies)
		p.held = 0
	}
	return w, entries, trees
}

// untake puts a write that failed back.
func (p *pending) untake(w store.AgentBatch, entries []*entry) {
	for _, e := range entries {
		p.agents[e] = struct{}{}
	}
	for _, body := range w.Bodies {
		p.body(fleet.ContentHash(body), body)
	}
	p.events = append(w.Events, p.events...)
	p.events = p.events[max(0, len(p.events)-maxEvents):]
}

// makeRoom has a body wait for the store when too many are held, and says whether it can be taken.
func (c *Control) makeRoom(ctx context.Context, body []byte) bool {
	c.mu.Lock()
	full := c.unsaved.held > 0 && c.unsaved.held+len(body) > maxHeld
	c.mu.Unlock()
	if !full {
		return true
	}
	err := c.save(ctx)
	c.report("write effective configurations", err)
	return err == nil
}

// save writes everything that is not written. When it returns nil, all that was noted before is on disk, whoever wrote it.
func (c *Control) save(ctx context.Context) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	for {
		c.mu.Lock()
		if c.unsaved.isEmpty() {
			c.mu.Unlock()
			return nil
		}
		w, entries, trees := c.unsaved.take()
		c.mu.Unlock()
		for i := range w.Agents {
			w.Agents[i] = whole(w.Agents[i], trees[i])
		}
		if err := c.store.SaveAgents(ctx, w); err != nil {
			c.mu.Lock()
			entries = slices.DeleteFunc(entries, func(e *entry) bool { return c.agents[e.uid] != e }) // has left the inventory since
			c.unsaved.untake(w, entries)
			c.mu.Unlock()
			return err
		}
		for _, body := range w.Bodies {
			c.written += len(body)
		}
	}
}

// discard deletes effective configurations that no agent has, when many were written.
func (c *Control) discard(ctx context.Context) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	if c.written < maxWritten {
		return nil
	}
	_, err := c.store.Prune(ctx, store.Retention{})
	if err == nil {
		c.written = 0
	}
	return err
}

// touch writes when agents were last seen, where nothing else of them is written.
func (c *Control) touch(ctx context.Context) error {
	seen := map[string]time.Time{}
	c.mu.Lock()
	for _, e := range c.agents {
		if e.touched {
			seen[e.agent.UID], e.touched = e.agent.LastSeen, false
		}
	}
	c.mu.Unlock()
	if len(seen) == 0 {
		return nil
	}
	return c.store.TouchAgents(ctx, seen)
}

// bury deletes the rows of agents that have left the inventory.
func (c *Control) bury(ctx context.Context) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	c.mu.Lock()
	uids := slices.Collect(maps.Keys(c.gone))
	c.mu.Unlock()
	var errs []error
	for _, uid := range uids {
		if err := c.buryOne(ctx, uid); err != nil {
			errs = append(errs, err)
			continue
		}
		c.mu.Lock()
		delete(c.gone, uid)
		c.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (c *Control) buryOne(ctx context.Context, uid string) error {
	c.mu.Lock()
	_, err := c.find(uid)
	c.mu.Unlock()
	if err == nil { // it came again
		return nil
	}
	switch err := c.store.ForgetAgent(ctx, uid); {
	case errors.Is(err, store.ErrConflict): // stored as connected
		a, err := c.store.Agent(ctx, uid)
		if err != nil {
			return err
		}
		a.Connected = false
		return errors.Join(c.store.SaveAgents(ctx, store.AgentBatch{Agents: []fleet.Agent{a}}), c.store.ForgetAgent(ctx, uid))
	case errors.Is(err, store.ErrNotFound):
		return nil
	default:
		return err
	}
}

// prune deletes what has been kept long enough.
func (c *Control) prune(ctx context.Context) error {
	if err := c.save(ctx); err != nil { // who has just come back is stored as connected, so that its row stays
		return err
	}
	now, credentials := c.now(), map[string]struct{}{}
	var keep store.Retention
	if c.keep.Events > 0 {
		keep.EventsSince = now.Add(-c.keep.Events)
	}
	if c.keep.Agents > 0 {
		keep.AgentsSince = now.Add(-c.keep.Agents)
		c.mu.Lock()
		for _, e := range c.agents {
			if !e.agent.Connected && e.agent.LastSeen.Before(keep.AgentsSince) {
				c.drop(e)
				c.credentialsOf(e, credentials)
			}
		}
		c.mu.Unlock()
	}
	pruned, err := c.store.Prune(ctx, keep)
	err = errors.Join(err, c.disown(ctx, fleet.ActorServer, credentials))
	if err == nil && pruned != (store.Pruned{}) {
		c.log.Info("deleted what was old", "agents", pruned.Agents, "events", pruned.Events, "effective_configs", pruned.Bodies)
	}
	return err
}
