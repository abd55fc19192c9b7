package control

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/opampserver"
)

// Report is part of opampserver.Fleet: it takes note of a message, and answers with what the agent lacks. Only such an answer waits
// for the store.
func (c *Control) Report(ctx context.Context, r *opampserver.Report) opampserver.Reply {
	u := translate(r)
	if m := r.CustomMessage; m != nil && m.Capability == plan.Capability && m.Type == plan.TypeAnswer {
		c.planAnswer(r.UID.String(), m.Data)
	}
	room := u.body == nil || c.makeRoom(ctx, u.body)
	c.mu.Lock()
	e := c.arrive(r)
	forgotten := false
	if e.blank && !r.New {
		r = recall(r)
		u, forgotten = translate(r), r.Incomplete
	}
	if !room {
		u.body = nil
	}
	e.blank = forgotten
	c.connect(e, r)
	c.update(e, r, u)
	offer := c.askFor(e, r, forgotten, c.prepare(e, r.Leaving))
	c.mu.Unlock()
	c.enrol(ctx, e)
	if r.CertificateRequest != nil {
		certificate, problem := c.certify(e, r.CertificateRequest.Csr)
		if problem != "" { // nothing goes along with it
			if offer != nil {
				c.retry(e)
			}
			return opampserver.Reply{BadRequest: problem}
		}
		if offer == nil {
			offer = &opampserver.Offer{}
		}
		offer.ConnectionSettings = certificate
	}
	if offer == nil {
		return opampserver.Reply{}
	}
	if offer.RemoteConfig != nil || offer.ConnectionSettings != nil || offer.Packages != nil {
		if err := c.save(ctx); err != nil { // what was not written is not sent
			c.report("write an offer", err)
			c.retry(e)
			return opampserver.Reply{}
		}
	}
	return opampserver.Reply{Offer: offer}
}

// recall is the report as it is for an agent that is forgotten here and that the endpoint remembers, which tells of changes only. Until a
// full report comes, the agent stays forgotten and is asked for one.
func recall(r *opampserver.Report) *opampserver.Report {
	all := *r
	all.New, all.Changed = true, ^opampserver.Parts(0)
	all.Introduced = r.State.Description != nil
	all.Incomplete = !all.Introduced
	return &all
}

// connect notes that the agent is there. The caller holds mu.
func (c *Control) connect(e *entry, r *opampserver.Report) {
	a := &e.agent
	a.LastSeen, e.touched = r.At, true
	if r.New || r.Reconnected {
		e.unsettle(r.At)
		e.tries, e.fresh = 0, true
	}
	before := e.peer
	if e.peer, _ = r.Principal.Value.(peer); e.peer.base != before.base || e.peer.certificate != before.certificate {
		e.settledUntil = time.Time{}
	}
	if r.Restarted { // it may know of nothing that was sent before
		e.unsettle(r.At)
		e.tries = 0
	}
	switch {
	case !r.Incomplete && !e.vague.IsZero():
		e.vague, e.settledUntil = time.Time{}, time.Time{}
	case !r.Incomplete:
	case e.vague.IsZero():
		e.vague = r.At
	}
	transport := [...]string{opampserver.WebSocket: "ws", opampserver.HTTP: "http"}[r.Transport]
	if a.Connected && a.Transport == transport {
		return
	}
	if !a.Connected {
		a.Connected, a.ConnectedSince = true, r.At
		c.tell(e, fleet.AgentConnected, "", transport+" from "+r.Remote)
		c.wake()
	}
	a.Transport = transport
	c.unsaved.agent(e)
}

// update lays what a message changed over the agent, and tells of what matters. The caller holds mu.
func (c *Control) update(e *entry, r *opampserver.Report, u *update) {
	a := &e.agent
	changed := r.Changed
	if r.Introduced { // what a full report leaves out is not so any more
		changed |= opampserver.PartComponents | opampserver.PartHealth | opampserver.PartRemoteConfigStatus | opampserver.PartPackageStatuses |
			opampserver.PartConnectionSettingsStatus | opampserver.PartCustomCapabilities
	}
	if changed != 0 || u.body != nil {
		e.settledUntil = time.Time{}
	}
	if u.body != nil {
		if a.EffectiveConfigHash != u.bodyHash { // else it is stored, or waits for that
			a.EffectiveConfigHash = u.bodyHash
			c.unsaved.body(u.bodyHash, u.body)
			c.unsaved.agent(e)
		}
		if a.IsBridge() || u.isBridge {
			e.managed = u.managed
		}
	}
	if u.body == nil && r.Changed.Has(opampserver.PartEffectiveConfig) { // a new process that does not say yet
		e.managed = nil
	}
	if changed == 0 {
		return
	}
	if changed.Has(opampserver.PartCapabilities) && a.Capabilities != u.capabilities { // it may take now what it did not before
		e.next, e.tries = r.At, 0
	}
	again := c.describe(a, u, changed)
	if changed.Has(opampserver.PartHealth) {
		c.health(e, u)
	}
	if changed.Has(opampserver.PartRemoteConfigStatus) {
		c.remoteConfigStatus(e, r, u)
	}
	if changed.Has(opampserver.PartPackageStatuses) {
		c.packageStatuses(e, u)
	}
	if changed.Has(opampserver.PartConnectionSettingsStatus) {
		c.connectionStatus(e, u)
	}
	if again {
		c.desire(e)
	}
	c.unsaved.agent(e)
	c.wake()
}

// describe takes up description and capabilities, and says whether another set may be desired now.
func (c *Control) describe(a *fleet.Agent, u *update, changed opampserver.Parts) (again bool) {
	if changed.Has(opampserver.PartDescription) && u.identifying != nil {
		again = !maps.Equal(a.Identifying, u.identifying) || !maps.Equal(a.NonIdentifying, u.nonIdentifying)
		a.Identifying, a.NonIdentifying = u.identifying, u.nonIdentifying
	}
	if changed.Has(opampserver.PartCapabilities) {
		again = again || a.Capabilities != u.capabilities
		a.Capabilities = u.capabilities
	}
	if changed.Has(opampserver.PartCustomCapabilities) {
		a.CustomCapabilities = slices.Clone(u.custom)
	}
	if changed.Has(opampserver.PartComponents) {
		a.AvailableComponentsHash = u.componentsHash
	}
	return again
}

// health takes up the health tree, and tells when the whole agent changes sides. The caller holds mu.
func (c *Control) health(e *entry, u *update) {
	a := &e.agent
	if h := u.health; h != nil && a.IsBridge() {
		h = bridgeHealth(h)
		e.setHealth(h, fold(h.Components))
	} else {
		e.setHealth(h, u.components)
	}
	switch {
	case !a.Unhealthy():
		if e.illTold {
			c.tell(e, fleet.AgentHealthy, "", "")
		}
		e.illSince, e.illTold = time.Time{}, false
	case e.illSince.IsZero():
		e.illSince = c.now()
		c.tellIll(e)
	}
}

// illnessLasts is how long an agent is unhealthy before that is told, if it names no error: while a Collector starts, it is.
const illnessLasts = 3 * time.Second

// tellIll tells once that an agent is unhealthy, when it is time. The caller holds mu.
func (c *Control) tellIll(e *entry) {
	if e.illSince.IsZero() || e.illTold || !e.agent.Unhealthy() ||
		e.agent.Health.LastError == "" && c.now().Sub(e.illSince) < illnessLasts {
		return
	}
	e.illTold = true
	c.tell(e, fleet.AgentUnhealthy, "", cmp.Or(e.agent.Health.LastError, e.agent.Health.Status))
}

// remoteConfigStatus takes up what became of a configuration. The caller holds mu.
func (c *Control) remoteConfigStatus(e *entry, r *opampserver.Report, u *update) {
	known := &e.agent.RemoteConfig
	same := known.ReportedHash == u.configHash && known.Status == u.configStatus && known.Error == u.configError
	if same && (u.configStatus != fleet.Failed || u.configHash == "") {
		return
	}
	c.notice(e, known.ReportedHash, u.configHash, known.DesiredHash)
	known.Report(r.At, u.configHash, u.configStatus, u.configError)
	if same || u.configHash == "" {
		return
	}
	switch u.configStatus {
	case fleet.Applying:
		c.tell(e, fleet.AgentApplying, u.configHash, "")
	case fleet.Applied:
		c.tell(e, fleet.AgentApplied, u.configHash, "")
	case fleet.Failed:
		c.tell(e, fleet.AgentFailed, u.configHash, u.configError)
	}
}

// notice looks for an agent that had what it should have, and has not any more: it is offered that again with the answer, unless it goes
// back each time. The caller holds mu.
func (c *Control) notice(e *entry, had, has, wanted string) {
	if had == wanted && has != wanted && e.tries <= 1 {
		e.next = c.now()
	}
}

// askFor adds questions to an offer: for the components behind a hash that nobody has explained, and for an OpAMPBridge's resources. The
// caller holds mu.
func (c *Control) askFor(e *entry, r *opampserver.Report, forgotten bool, offer *opampserver.Offer) *opampserver.Offer {
	if r.Leaving {
		return offer
	}
	if r.Components != nil && len(r.Components.Components) > 0 {
		c.explain(r)
	}
	fullState := forgotten || r.New && r.EffectiveConfig == nil && r.State.EffectiveConfigHash != ""
	components := e.agent.AvailableComponentsHash != "" && (r.New || r.Changed.Has(opampserver.PartComponents)) &&
		!c.explained(e.agent.AvailableComponentsHash)
	newUID := uuid.Nil
	if e.agent.IsBridge() {
		fullState = fullState || e.managed == nil && (r.Introduced || r.Changed.Has(opampserver.PartEffectiveConfig)) && !r.Incomplete
		newUID = c.sameBridge(e)
	}
	if !fullState && !components && newUID == uuid.Nil {
		return offer
	}
	if offer == nil {
		offer = &opampserver.Offer{}
	}
	offer.FullState, offer.Components, offer.NewUID = fullState, components, newUID
	return offer
}
