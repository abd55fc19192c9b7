package control

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
)

// entry is one agent. It is guarded by Control.mu. Maps and slices in agent are replaced, never changed in place, so that a copy
// of the struct can be written without the lock.
type entry struct {
	uid   uuid.UUID
	agent fleet.Agent
	// components are those of agent.Health.
	components tree
	// touched: LastSeen is newer than the store's.
	touched bool
	// next is when the desired set may be offered again, tries how often it was, and fresh that it must be on this connection, since
	// the agent does not report what it has.
	next  time.Time
	tries int
	fresh bool
	// blank: nothing but the UID is known.
	blank bool
	// lost: an offer was made and not sent. Only so is it made again to an agent that does not say what became of it.
	lost bool
	// settledUntil is how long nothing is due unless something changes. Whoever changes what prepare looks at resets it.
	settledUntil time.Time
	// managed are the resources that an OpAMPBridge says it has and would delete; nil before it says.
	managed map[string]struct{}
	// peer is how it reached this server last, and credential the one that was made for it and that it does not use yet.
	peer       peer
	credential *credential
	// illSince is since when it has been unhealthy, illTold that this was told.
	illSince time.Time
	illTold  bool
	// vague is since when its full state has been asked for and not come, zero if it has.
	vague time.Time
	// greeted is the token that it was last seen with.
	greeted string
	// issueAfter is when it may be given a credential again without anybody asking.
	issueAfter time.Time
	story      story
}

// loadAgents takes up what is stored. Agents that are stored as connected are so no more.
func (c *Control) loadAgents(ctx context.Context) error {
	all, err := c.store.AllAgents(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		uid, err := uuid.Parse(a.UID)
		if err != nil {
			return err
		}
		e := &entry{uid: uid, agent: a}
		if a.Health != nil {
			e.setHealth(a.Health, fold(a.Health.Components))
		}
		if a.Unhealthy() {
			e.illSince, e.illTold = a.LastSeen, true
		}
		if a.Connected {
			e.agent.Connected, e.agent.ConnectedSince = false, time.Time{}
			c.unsaved.agent(e)
		}
		c.agents[uid] = e
	}
	return nil
}

// find returns an agent's entry. The caller holds mu.
func (c *Control) find(uid string) (*entry, error) {
	parsed, err := uuid.Parse(uid)
	if err == nil {
		if e := c.agents[parsed]; e != nil {
			return e, nil
		}
	}
	return nil, store.ErrNotFound
}

// arrive returns the entry of whoever reports. An agent under a new UID goes on with what was known under the one before. The caller
// holds mu.
func (c *Control) arrive(r *opampserver.Report) *entry {
	e := c.agents[r.UID]
	previous := c.agents[r.Previous]
	if e == nil {
		e = newEntry(r.UID, r.At)
		c.agents[r.UID] = e
	}
	if previous != nil {
		if e.blank {
			e.succeed(previous)
		}
		c.drop(previous)
	}
	if p, _ := r.Principal.Value.(peer); p.owner != "" && p.owner != e.agent.UID {
		e.agent.Formerly = p.owner
	}
	if other := c.agents[r.DuplicateOf]; other != nil {
		other.agent.Duplicates++
		c.unsaved.agent(other)
		c.tell(other, fleet.AgentDuplicate, "", "given to the other one: "+r.UID.String())
	}
	return e
}

func newEntry(uid uuid.UUID, now time.Time) *entry {
	return &entry{uid: uid, blank: true, agent: fleet.Agent{UID: uid.String(), FirstSeen: now, LastSeen: now}}
}

// succeed takes over what was known under the UID before.
func (e *entry) succeed(previous *entry) {
	uid, enrolment := e.agent.UID, cmp.Or(e.agent.Enrolment, previous.agent.Enrolment)
	e.agent, e.components, e.managed, e.story = previous.agent, previous.components, previous.managed, previous.story
	e.illSince, e.illTold = previous.illSince, previous.illTold
	e.agent.UID, e.agent.Enrolment, e.agent.Connected, e.agent.ConnectedSince = uid, enrolment, false, time.Time{}
	e.blank = false
}

// unsettle has the agent looked at again, at this time or later. The caller holds mu.
func (e *entry) unsettle(next time.Time) { e.settledUntil, e.next = time.Time{}, next }

// drop takes an agent out of the inventory. The caller holds mu.
func (c *Control) drop(e *entry) {
	delete(c.agents, e.uid)
	c.unsaved.forget(e)
	c.gone[e.agent.UID] = struct{}{}
	c.wake()
}

// Gone is part of opampserver.Fleet.
func (c *Control) Gone(uid uuid.UUID, reason opampserver.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.agents[uid]
	if e == nil || !e.agent.Connected {
		return
	}
	e.agent.Connected, e.agent.ConnectedSince = false, time.Time{}
	c.unsaved.agent(e)
	switch reason {
	case opampserver.ReasonRenamed: // it arrives under its new UID now, and takes along what is known
	case opampserver.ReasonShutdown: // server_stopped says it for all
	default:
		c.tell(e, fleet.AgentDisconnected, "", string(reason))
	}
	c.wake()
}

// tell notes an event of an agent, caused by itself. The caller holds mu.
func (c *Control) tell(e *entry, kind fleet.Kind, hash, message string) {
	event := fleet.Event{Time: c.now(), Actor: e.agent.UID, Kind: kind, Agent: e.agent.UID, Hash: hash, Message: message}
	leftOut, ok := e.story.admit(event.Time)
	if !ok {
		return
	}
	if leftOut > 0 {
		c.unsaved.event(fleet.Event{
			Time: event.Time, Actor: fleet.ActorServer, Kind: fleet.EventsLeftOut, Agent: e.agent.UID,
			Message: fmt.Sprintf("%d events, more than are kept of one agent", leftOut),
		})
	}
	c.unsaved.event(event)
}

// note notes an event.
func (c *Control) note(e fleet.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsaved.event(e)
}

// Restart is part of api.Control.
func (c *Control) Restart(ctx context.Context, actor, uid string) error {
	ctx, cancel := decided(ctx)
	defer cancel()
	e, err := c.push(uid, &opampserver.Offer{Restart: true})
	if err != nil {
		return err
	}
	c.note(fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.AgentRestarted, Agent: e.agent.UID})
	c.report("write a restart", c.save(ctx)) // it is asked already; the event waits for a store that works
	return nil
}

// push sends an offer that a person asked for.
func (c *Control) push(uid string, o *opampserver.Offer) (*entry, error) {
	c.mu.Lock()
	e, err := c.find(uid)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return e, translateError(c.opamp.Push(e.uid, o))
}

// Forget is part of api.Control. The row goes first: while it is there, the agent can be forgotten again.
func (c *Control) Forget(ctx context.Context, actor, uid string) error {
	ctx, cancel := decided(ctx)
	defer cancel()
	e, err := c.findAway(uid)
	if err != nil {
		return err
	}
	c.opamp.Forget(e.uid)               // not while saving is held: whoever reports is waited for, and may wait for saving
	if err := c.save(ctx); err != nil { // the row may be older than what is known
		return err
	}
	c.saving.Lock() // no write of it may come after
	defer c.saving.Unlock()
	if e, err = c.findAway(uid); err != nil {
		return err
	}
	event := fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.AgentForgotten, Agent: e.agent.UID}
	if err := c.store.ForgetAgent(ctx, e.agent.UID, event); err != nil {
		return err
	}
	c.mu.Lock()
	credentials := map[string]struct{}{}
	if !e.agent.Connected { // else it has just come, and will be written
		delete(c.agents, e.uid)
		c.unsaved.forget(e)
		c.credentialsOf(e, credentials)
	}
	c.wake()
	c.mu.Unlock()
	return c.disown(ctx, actor, credentials)
}

// credentialsOf adds the UIDs whose credentials end with an agent that has left the inventory: its own, and the one before if nobody has it
// any more. The caller holds mu.
func (c *Control) credentialsOf(e *entry, into map[string]struct{}) {
	into[e.agent.UID] = struct{}{}
	if _, err := c.find(e.agent.Formerly); e.agent.Formerly != "" && err != nil {
		into[e.agent.Formerly] = struct{}{}
	}
}

// disown revokes the credentials of agents that are known no more: nobody would see what is done with them.
func (c *Control) disown(ctx context.Context, actor string, uids map[string]struct{}) error {
	if c.auth == nil || len(uids) == 0 {
		return nil
	}
	return c.auth.RevokeAgents(ctx, actor, uids)
}

// findAway returns the entry of an agent that is not connected.
func (c *Control) findAway(uid string) (*entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(uid)
	if err == nil && e.agent.Connected {
		err = api.ErrConnected
	}
	return e, err
}

// Desired is part of api.Control.
func (c *Control) Desired(_ context.Context, uid string) (fleet.DesiredSet, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(uid)
	if err != nil {
		return fleet.DesiredSet{}, err
	}
	return fleet.Desired(&e.agent, c.deployments), nil
}

// UIDOf finds an agent by its service.instance.id, which is its UID or one of its attributes.
func (c *Control) UIDOf(instanceID string) (uid string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, err := c.find(instanceID); err == nil {
		return e.agent.UID, true
	}
	for _, e := range c.agents {
		if e.agent.Identifying["service.instance.id"] == instanceID && instanceID != "" {
			return e.agent.UID, true
		}
	}
	return "", false
}

// Summary counts what there is.
type Summary struct {
	States   map[fleet.State]int
	Rollouts int
	// Unsaved are agents and events that are not written yet.
	Unsaved int
}

// Summary counts what there is.
func (c *Control) Summary() Summary {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Summary{States: map[fleet.State]int{}, Unsaved: len(c.unsaved.agents) + len(c.unsaved.events)}
	for _, state := range fleet.States() {
		s.States[state] = 0
	}
	for _, e := range c.agents {
		s.States[e.agent.State()]++
	}
	for _, d := range c.deployments {
		if d.Rollout != nil {
			s.Rollouts++
		}
	}
	return s
}
