package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
)

// peer is who is behind a request, and how it came.
type peer struct {
	// token is the credential, nil if there was none.
	token *store.Token
	// certificate is the client's, verified; owner is the agent it is for.
	certificate *x509.Certificate
	owner       string
	// url is at which it reached this server, base without path.
	url, base string
}

// Authenticate is part of opampserver.Fleet: a certificate of our own authority, or a token of the role agent.
func (c *Control) Authenticate(r *http.Request) (opampserver.Principal, error) {
	p := c.reached(r)
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && c.authority != nil {
		p.certificate = r.TLS.PeerCertificates[0]
		owner, ok := c.authority.UIDOf(p.certificate)
		if !ok {
			return opampserver.Principal{}, &opampserver.StatusError{Code: http.StatusUnauthorized, Message: "the certificate names no agent"}
		}
		p.owner = owner
		return opampserver.Principal{Name: owner, Value: p}, nil
	}
	if c.auth == nil {
		return opampserver.Principal{Name: "dev", Value: p}, nil
	}
	token, err := c.auth.Bearer(r, apiv1.RoleAgent)
	var refused *auth.Refused
	if errors.As(err, &refused) {
		return opampserver.Principal{}, &opampserver.StatusError{Code: refused.Code, Message: refused.Message, RetryAfter: refused.RetryAfter}
	}
	if err != nil {
		return opampserver.Principal{}, err
	}
	p.token, p.owner = &token, token.Agent
	return opampserver.Principal{Name: token.ID, Value: p}, nil
}

// reached is the address in a request, as the agent's offers need it.
func (c *Control) reached(r *http.Request) peer {
	upgrade := r.Header.Get("Upgrade") != ""
	base := c.publicURL
	if base == "" {
		base = "ws://" + r.Host
		// A proxy that ends TLS says so. An agent that says it falsely harms itself alone, and never loses TLS.
		if forwarded := r.Header.Get("X-Forwarded-Proto"); r.TLS != nil || forwarded == "https" || forwarded == "wss" {
			base = "wss://" + r.Host
		}
	}
	if !upgrade { // who polls goes on polling
		base = httpBase(base)
	}
	return peer{url: base + opampserver.Path, base: base}
}

// Admit is part of opampserver.Fleet.
func (c *Control) Admit(principal opampserver.Principal, uid uuid.UUID) error {
	p, _ := principal.Value.(peer)
	former, duplicate := c.opamp.Given(uid)
	if p.owner != "" && p.owner != uid.String() && p.owner != former.String() && !c.wasFormerly(uid, p.owner) {
		return fmt.Errorf("this credential is for the agent %s", p.owner)
	}
	if p.token == nil {
		return nil
	}
	if !c.auth.Valid(*p.token) {
		return errors.New("the credential is revoked or has expired")
	}
	if p.token.Uses < 0 {
		return nil
	}
	if duplicate {
		former = uuid.Nil // another agent's
	}
	return c.redeem(p.token, uid, former)
}

// wasFormerly says whether an agent was given its UID while it had a credential for this one.
func (c *Control) wasFormerly(uid uuid.UUID, owner string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.agents[uid]
	return e != nil && e.agent.Formerly == owner
}

// redeem counts the first message of an agent with an enrolment token. Its later ones, after a restart of either side too, are free.
func (c *Control) redeem(t *store.Token, uid, former uuid.UUID) error {
	c.enrolling.Lock()
	defer c.enrolling.Unlock()
	if c.hasEnrolled(t, uid) || c.hasEnrolled(t, former) {
		return nil
	}
	ctx, cancel := decided(context.Background())
	defer cancel()
	if err := c.auth.Redeem(ctx, *t); err != nil {
		return err
	}
	c.mu.Lock()
	e := c.agents[uid]
	if e == nil {
		e = newEntry(uid, c.now())
		c.agents[uid] = e
	}
	e.agent.Enrolment = t.ID
	c.unsaved.agent(e)
	c.mu.Unlock()
	c.report("write an enrolment", c.save(ctx)) // at once: a use that is counted for nobody locks the agent out
	return nil
}

func (c *Control) hasEnrolled(t *store.Token, uid uuid.UUID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.agents[uid]
	return e != nil && e.agent.Enrolment == t.ID
}

// issueEvery is how often an agent may be given a credential without anybody asking for it.
const issueEvery = time.Minute

// enrol gives an agent that came with an enrolment token a credential of its own, and ends what its own credential replaces.
func (c *Control) enrol(ctx context.Context, e *entry) {
	if c.auth == nil {
		return
	}
	c.mu.Lock()
	token := e.peer.token
	known := token == nil || e.greeted == token.ID
	if token != nil {
		e.greeted = token.ID
	}
	wants := c.credentials && token != nil && token.Agent != e.agent.UID && e.credential == nil && !c.now().Before(e.issueAfter) &&
		e.agent.Capabilities.Has(fleet.AcceptsOpAMPConnectionSettings)
	contends := wants && e.agent.Credential != "" && e.agent.Credential != token.ID && c.auth.Known(e.agent.Credential)
	if wants {
		e.issueAfter = c.now().Add(issueEvery)
	}
	if contends {
		c.tell(e, fleet.AgentContended, "", "token "+token.ID)
		c.log.Warn("an agent that has a credential of its own comes with an enrolment token; both are good until the first is used again, or rotated",
			"instance_uid", e.uid, "token", token.ID)
	}
	c.mu.Unlock()
	switch {
	case wants:
		if err := c.issue(ctx, fleet.ActorServer, e, contends); err != nil {
			c.log.Error("an agent gets no credential of its own", "instance_uid", e.uid, "error", err)
		}
		c.wake()
	case !known:
		c.inUse(ctx, e, token)
	}
}
