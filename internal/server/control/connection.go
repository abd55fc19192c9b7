package control

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
)

// certificateLifetime is that of client certificates. Agents renew them when two thirds are over.
const certificateLifetime = 90 * 24 * time.Hour

// credential is one that was made for an agent and that the agent does not use yet. Its secret is nowhere else.
type credential struct{ id, secret string }

// prepareConnection adds the connection settings that the agent lacks to an offer. The caller holds mu.
func (c *Control) prepareConnection(e *entry, offer *opampserver.Offer) {
	settings := c.wanted(e)
	basis := basisOf(settings, e.credential)
	known := &e.agent.ConnectionSettings
	if basis == "" || basis == known.Basis && known.OfferedHash == known.ReportedHash {
		return
	}
	message := c.settingsFor(e, settings)
	if message == nil {
		return
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return
	}
	sum := sha256.Sum256(encoded)
	message.Hash = sum[:]
	hash := hex.EncodeToString(message.Hash)
	reports := e.agent.Capabilities.Has(fleet.ReportsConnectionSettingsStatus)
	if basis == known.Basis && (known.OfferedHash != hash || !reports && !e.lost) {
		// The same wish with a message that cannot be made again, such as one with a secret that is in use by now; or an agent that
		// does not say what became of it.
		return
	}
	if known.ReportedHash == hash && known.Status != fleet.Unset {
		known.Basis, known.OfferedHash = basis, hash
		c.unsaved.agent(e)
		return
	}
	known.Basis, known.OfferedHash = basis, hash
	offer.ConnectionSettings = message
	c.tell(e, fleet.ConnectionsOffered, hash, "")
}

// wanted is what the agent should have and can take. The caller holds mu.
func (c *Control) wanted(e *entry) apiv1.ConnectionOffer {
	if len(c.connections) == 0 && e.credential == nil {
		return apiv1.ConnectionOffer{}
	}
	can := e.agent.Capabilities
	w := merged(c.connections, e.agent.Attributes())
	if !can.Has(fleet.AcceptsOpAMPConnectionSettings) {
		w.OpAMP = nil
	} else if w.OpAMP == nil && e.credential != nil {
		w.OpAMP = &apiv1.OpAMPSettings{}
	}
	if !can.Has(fleet.ReportsOwnMetrics) {
		w.OwnMetrics = nil
	}
	if !can.Has(fleet.ReportsOwnTraces) {
		w.OwnTraces = nil
	}
	if !can.Has(fleet.ReportsOwnLogs) {
		w.OwnLogs = nil
	}
	if !can.Has(fleet.AcceptsOtherConnectionSettings) {
		w.Other = nil
	}
	return w
}

// basisOf names what was wished for, without what is made anew each time. It is empty if nothing is.
func basisOf(w apiv1.ConnectionOffer, cr *credential) string {
	if w.OpAMP == nil && len(destinations(&w)) == 0 {
		return ""
	}
	data, _ := json.Marshal(w) // texts and maps of them
	if cr != nil {
		data = append(data, "\x00"+cr.id...)
	}
	return fleet.ContentHash(data)
}

// settingsFor is the wish as it is sent; nil if it cannot be sent now. The caller holds mu.
func (c *Control) settingsFor(e *entry, w apiv1.ConnectionOffer) *protobufs.ConnectionSettingsOffers {
	m := &protobufs.ConnectionSettingsOffers{}
	if w.OpAMP != nil {
		if m.Opamp = c.opampSettings(e, w.OpAMP); m.Opamp == nil {
			return nil
		}
	}
	if d := w.OwnMetrics; d != nil {
		if d.Endpoint == toSelf {
			d = c.selfDestination(e)
		}
		if d != nil {
			m.OwnMetrics = telemetrySettings(d)
		}
	}
	if w.OwnTraces != nil {
		m.OwnTraces = telemetrySettings(w.OwnTraces)
	}
	if w.OwnLogs != nil {
		m.OwnLogs = telemetrySettings(w.OwnLogs)
	}
	for name, d := range w.Other {
		if m.OtherConnections == nil {
			m.OtherConnections = map[string]*protobufs.OtherConnectionSettings{}
		}
		m.OtherConnections[name] = &protobufs.OtherConnectionSettings{DestinationEndpoint: d.Endpoint, Headers: headers(d.Headers), Tls: tlsSettings(d.CA)}
	}
	if m.Opamp == nil && m.OwnMetrics == nil && m.OwnTraces == nil && m.OwnLogs == nil && len(m.OtherConnections) == 0 {
		return nil
	}
	return m
}

func (c *Control) opampSettings(e *entry, s *apiv1.OpAMPSettings) *protobufs.OpAMPConnectionSettings {
	interval, _ := heartbeat(s) // validated
	m := &protobufs.OpAMPConnectionSettings{
		DestinationEndpoint: cmp.Or(s.Endpoint, e.peer.url), HeartbeatIntervalSeconds: uint64(interval / time.Second), Tls: tlsSettings(s.CA),
	}
	if m.DestinationEndpoint == "" {
		return nil
	}
	switch { // no headers leave the agent's own as they are
	case s.Endpoint != "":
		m.Headers = headers(s.Headers)
	case e.credential != nil:
		m.Headers = headers(map[string]string{"Authorization": "Bearer " + e.credential.secret})
	}
	if e.peer.certificate != nil { // an offer without it would take it away (spec "OpAMPConnectionSettings.certificate")
		m.Certificate = &protobufs.TLSCertificate{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.peer.certificate.Raw})}
	}
	return m
}

// connectionStatus takes up what became of an offer. The caller holds mu.
func (c *Control) connectionStatus(e *entry, u *update) {
	known := &e.agent.ConnectionSettings
	if known.ReportedHash == u.connectionHash && known.Status == u.connectionStatus && known.Error == u.connectionError {
		return
	}
	c.notice(e, known.ReportedHash, u.connectionHash, known.OfferedHash)
	known.ReportedHash, known.Status, known.Error = u.connectionHash, u.connectionStatus, u.connectionError
	switch u.connectionStatus {
	case fleet.Applied:
		c.tell(e, fleet.ConnectionsApplied, u.connectionHash, "")
	case fleet.Failed:
		c.tell(e, fleet.ConnectionsFailed, u.connectionHash, u.connectionError)
	}
}

// RotateCredential is part of api.Control.
func (c *Control) RotateCredential(ctx context.Context, actor, uid string) error {
	if c.auth == nil {
		return api.ErrNoTokens
	}
	c.mu.Lock()
	e, err := c.find(uid)
	switch {
	case err != nil:
	case !e.agent.Connected:
		err = api.ErrAway
	case !e.agent.Capabilities.Has(fleet.AcceptsOpAMPConnectionSettings):
		err = api.ErrCapability
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := decided(ctx)
	defer cancel()
	if err := c.issue(ctx, actor, e, false); err != nil {
		return err
	}
	c.wake()
	c.report("write who rotated a credential", c.save(ctx))
	return nil
}

// issue makes a credential for one agent. It is offered with its connection settings, and lives on when it is used. Whoever contends for
// an agent gets one that does not end the agent's.
func (c *Control) issue(ctx context.Context, actor string, e *entry, contends bool) error {
	secret, token, err := c.auth.Create(ctx, actor, auth.Request{Role: apiv1.RoleAgent, Agent: e.agent.UID, Uses: -1})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.credential, e.tries = &credential{token.ID, secret}, 0
	e.agent.Contender = ""
	if contends {
		e.agent.Contender = token.ID
	}
	c.unsaved.agent(e)
	e.unsettle(time.Time{})
	c.unsaved.event(fleet.Event{Time: c.now(), Actor: actor, Kind: fleet.CredentialIssued, Agent: e.agent.UID, Message: token.ID})
	return nil
}

// inUse ends all other credentials of an agent that has come with its newest, or with its own while there is one of a contender's. The
// contender's ends nothing but what is older of its kind.
func (c *Control) inUse(ctx context.Context, e *entry, t *store.Token) {
	if t == nil || t.Agent != e.agent.UID {
		return
	}
	c.mu.Lock()
	a := &e.agent
	contender := a.Contender == t.ID && c.auth.Known(a.Credential)
	back := a.Contender != "" && a.Credential == t.ID
	ends := e.credential == nil || e.credential.id == t.ID || back
	keep := []string{t.ID}
	if ends {
		e.credential, e.settledUntil = nil, time.Time{}
		if contender {
			keep = append(keep, a.Credential)
		} else {
			a.Credential, a.Contender = t.ID, ""
		}
		c.unsaved.agent(e)
	}
	c.mu.Unlock()
	if !ends {
		return
	}
	if err := c.auth.RevokeAgent(ctx, fleet.ActorServer, e.agent.UID, keep...); err != nil {
		c.log.Error("older credentials of an agent are still valid; trying again", "instance_uid", e.uid, "error", err)
		c.mu.Lock()
		e.greeted = "" // with its next message
		c.mu.Unlock()
	}
}
