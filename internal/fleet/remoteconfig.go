package fleet

import (
	"slices"
	"time"
)

// maxRefused bounds the failed configurations remembered for an agent; the agent itself remembers 32.
const maxRefused = 64

// RemoteConfig is the remote configuration of an agent: desired, offered, reported. Hashes are in hexadecimal digits.
type RemoteConfig struct {
	// DesiredHash names the set of files that the agent should run; empty if nothing was ever desired of it.
	DesiredHash string `json:"desired_hash,omitempty"`
	// OfferedHash is what was sent last, at OfferedAt.
	OfferedHash string    `json:"offered_hash,omitempty"`
	OfferedAt   time.Time `json:"offered_at,omitzero"`
	// ReportedHash, Status and Error are the agent's last word, at ReportedAt.
	ReportedHash string    `json:"reported_hash,omitempty"`
	ReportedAt   time.Time `json:"reported_at,omitzero"`
	Status       Status    `json:"status,omitempty"`
	Error        string    `json:"error,omitempty"`
	// Withheld says why the desired set is not offered: an OpAMPBridge would delete what the set does not name. Empty if it is.
	Withheld string `json:"withheld,omitempty"`
	// Refused are the sets that failed on this agent, the newest first, 64 at most.
	Refused []Refusal `json:"refused,omitempty"`
}

// Refusal is a set of files that failed on an agent.
type Refusal struct {
	Hash  string    `json:"hash"`
	Error string    `json:"error,omitempty"`
	At    time.Time `json:"at,omitzero"`
}

// Report takes note of what the agent says. A set that failed is remembered, also when the agent goes on to report the one
// before it as applied; a set that is applied after all is taken off the list.
func (c *RemoteConfig) Report(now time.Time, hash string, status Status, message string) {
	c.ReportedHash, c.Status, c.Error, c.ReportedAt = hash, status, message, now
	if hash == "" || (status != Failed && status != Applied) {
		return
	}
	c.Refused = slices.DeleteFunc(slices.Clone(c.Refused), func(r Refusal) bool { return r.Hash == hash })
	if status == Failed {
		c.Refused = slices.Insert(c.Refused, 0, Refusal{Hash: hash, Error: message, At: now})
		c.Refused = c.Refused[:min(len(c.Refused), maxRefused)]
	}
}

// Offered takes note of an offer that was sent.
func (c *RemoteConfig) Offered(now time.Time, hash string) { c.OfferedHash, c.OfferedAt = hash, now }

// Refusal returns how the set failed on this agent.
func (c *RemoteConfig) Refusal(hash string) (Refusal, bool) {
	i := slices.IndexFunc(c.Refused, func(r Refusal) bool { return r.Hash == hash })
	if hash == "" || i < 0 {
		return Refusal{}, false
	}
	return c.Refused[i], true
}

// Runs says whether the agent has applied the set. An agent that does not report remote configuration is believed to apply
// what it is sent.
func (a *Agent) Runs(hash string) bool {
	c := &a.RemoteConfig
	if !a.Capabilities.Has(ReportsRemoteConfig) {
		return hash != "" && c.OfferedHash == hash
	}
	return hash != "" && c.ReportedHash == hash && c.Status == Applied
}

// ShouldOffer says whether the desired set must be sent: the agent is there, takes remote configuration, does not have it, and
// has not failed with it. The answer is about the state, not about time: whoever offers decides how often to repeat.
func (a *Agent) ShouldOffer() bool {
	c := &a.RemoteConfig
	if !a.Connected || !a.Capabilities.Has(AcceptsRemoteConfig) || c.DesiredHash == "" {
		return false
	}
	if _, refused := c.Refusal(c.DesiredHash); refused {
		return false
	}
	if !a.Capabilities.Has(ReportsRemoteConfig) {
		return c.OfferedHash != c.DesiredHash
	}
	return c.ReportedHash != c.DesiredHash
}
