package control

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/opampserver"
)

const (
	// firstRepeat is when an offer without an answer is sent again; the pause doubles up to lastRepeat.
	firstRepeat = 30 * time.Second
	lastRepeat  = 10 * time.Minute
	// waitForState is how long an agent is not offered anything whose full state was asked for: what is missing may be that it has
	// applied the configuration, or that it failed with it.
	waitForState = 30 * time.Second
	// lookAgain is when an agent that has everything is looked at again if nothing changes.
	lookAgain = time.Minute
	// afterBusy is when an agent is looked at again for which too much was waiting.
	afterBusy = time.Second
)

// desire computes what an agent should run. The caller holds mu.
func (c *Control) desire(e *entry) {
	set := fleet.Desired(&e.agent, c.deployments)
	known := &e.agent.RemoteConfig
	withheld := e.withheld(set)
	if known.DesiredHash == set.Hash && known.Withheld == withheld {
		return
	}
	if known.DesiredHash != set.Hash {
		e.next, e.tries = time.Time{}, 0
	}
	e.settledUntil = time.Time{}
	known.DesiredHash, known.Withheld = set.Hash, withheld
	c.unsaved.agent(e)
	if withheld != "" && len(e.managed) > 0 {
		c.tell(e, fleet.AgentWithheld, set.Hash, withheld)
	}
}

// desireAll does so for all agents. The caller holds mu.
func (c *Control) desireAll() {
	for _, e := range c.agents {
		c.desire(e)
	}
	c.wake()
}

// prepare makes the offer of what the agent lacks, and notes that it was made; nil if nothing is due. The caller holds mu, and
// sends it after save.
func (c *Control) prepare(e *entry, leaving bool) *opampserver.Offer {
	now := c.now()
	if leaving || !e.agent.Connected || now.Before(e.next) || now.Before(e.settledUntil) {
		return nil
	}
	var offer opampserver.Offer
	if e.agent.IsBridge() {
		c.desire(e) // what it manages may have come to be known
	}
	if e.shouldOffer(now) {
		set := fleet.Desired(&e.agent, c.deployments)
		offer.RemoteConfig = remoteConfig(set)
		e.agent.RemoteConfig.Offered(now, set.Hash)
		c.tell(e, fleet.AgentOffered, set.Hash, "")
	}
	c.prepareConnection(e, &offer)
	c.preparePackage(e, &offer)
	if offer.RemoteConfig == nil && offer.ConnectionSettings == nil && offer.Packages == nil {
		if e.settledUntil = now.Add(lookAgain); !e.vague.IsZero() {
			e.settledUntil = now.Add(afterBusy)
		}
		return nil
	}
	e.fresh, e.lost = false, false
	e.next = now.Add(min(firstRepeat<<min(e.tries, 10), lastRepeat))
	e.tries++
	c.unsaved.agent(e)
	return &offer
}

// shouldOffer says whether the desired set must be sent. To an agent that does not report what it has, it is on each connection.
func (e *entry) shouldOffer(now time.Time) bool {
	a := &e.agent
	if a.RemoteConfig.Withheld != "" || !e.vague.IsZero() && now.Sub(e.vague) < waitForState {
		return false
	}
	blind := a.Capabilities.Has(fleet.AcceptsRemoteConfig) && !a.Capabilities.Has(fleet.ReportsRemoteConfig)
	return a.ShouldOffer() || blind && e.fresh && a.RemoteConfig.DesiredHash != ""
}

// remoteConfig is a set as it is sent.
func remoteConfig(set fleet.DesiredSet) *protobufs.AgentRemoteConfig {
	files := make(map[string]*protobufs.AgentConfigFile, len(set.Files))
	for _, f := range set.Files {
		files[f.Name] = &protobufs.AgentConfigFile{Body: f.Body, ContentType: "text/yaml"}
	}
	hash, _ := hex.DecodeString(set.Hash) // made by package fleet
	return &protobufs.AgentRemoteConfig{Config: &protobufs.AgentConfigMap{ConfigMap: files}, ConfigHash: hash}
}

// atOnce is how many offers are written before the first of them is sent: what agents say meanwhile is written behind them.
const atOnce = 10_000

// offerDue sends all offers that are due. They are written before they are sent.
func (c *Control) offerDue(ctx context.Context) {
	type due struct {
		e     *entry
		offer *opampserver.Offer
	}
	for {
		var list []due
		c.mu.Lock()
		for _, e := range c.agents {
			c.tellIll(e)
			if offer := c.prepare(e, false); offer != nil {
				list = append(list, due{e, offer})
			}
			if len(list) == atOnce {
				break
			}
		}
		c.mu.Unlock()
		if len(list) == 0 {
			return
		}
		if err := c.save(ctx); err != nil {
			c.report("write offers", err)
			for _, d := range list {
				c.retry(d.e)
			}
			return
		}
		for _, d := range list {
			if err := c.opamp.Push(d.e.uid, d.offer); err != nil {
				c.Dropped(d.e.uid, err)
			}
		}
	}
}

// retry makes an agent's offer due again, soon.
func (c *Control) retry(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.unsent()
	e.unsettle(c.now().Add(afterBusy))
}

// unsent notes that an offer was made and not sent. The caller holds mu.
func (e *entry) unsent() { e.fresh, e.lost, e.settledUntil = true, true, time.Time{} }

// Dropped is part of opampserver.Fleet: an offer was not sent.
func (c *Control) Dropped(uid uuid.UUID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.agents[uid]
	if e == nil {
		return
	}
	e.unsent()
	switch {
	case errors.Is(err, opampserver.ErrOffline), errors.Is(err, opampserver.ErrUnknownAgent): // it is offered when it comes
	case errors.Is(err, opampserver.ErrBusy):
		e.next = c.now().Add(afterBusy)
	default: // too large, or a capability that has just gone: as if it had not answered
		c.log.Warn("an offer cannot be sent", "instance_uid", uid, "error", err)
	}
}

// translateError says in api's terms why Push did not send.
func translateError(err error) error {
	var lacks *opampserver.CapabilityError
	switch {
	case errors.Is(err, opampserver.ErrOffline), errors.Is(err, opampserver.ErrUnknownAgent):
		return api.ErrAway
	case errors.Is(err, opampserver.ErrBusy):
		return errors.Join(api.ErrBusy, err)
	case errors.As(err, &lacks):
		return errors.Join(api.ErrCapability, err)
	}
	return err
}
