// Package plan is the custom capability io.collie.plan/v1: a server asks an agent what it would do with a configuration, and
// the agent answers with the judgement of the very binary that would run it. Nothing changes. docs/plan-protocol.md is the
// schema; both sides use this package.
package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
)

// The capability and its message types, as in CustomMessage.
const (
	Capability = "io.collie.plan/v1"
	TypePlan   = "plan"
	TypeAnswer = "answer"
)

const (
	// MaxMessage bounds a message of either side in bytes.
	MaxMessage = 8 << 20
	// maxID bounds Request.ID.
	maxID = 128
	// maxText bounds each text of an answer; longer ones are left out.
	maxText = 1 << 20
)

// Request asks for a judgement.
type Request struct {
	// ID is repeated in the answer; 1 to 128 bytes.
	ID string `json:"id"`
	// Files are the candidate, as in AgentConfigMap: names to bodies.
	Files map[string]string `json:"files"`
}

// Outcome is what would become of the candidate.
type Outcome string

// The outcomes.
const (
	Accepted Outcome = "accepted" // it would be applied
	Refused  Outcome = "refused"  // Stage and Message say where and why
	Busy     Outcome = "busy"     // too many requests: ask again after a second
	Invalid  Outcome = "invalid"  // the request cannot be read
)

// Answer is the judgement.
type Answer struct {
	ID      string  `json:"id"`
	Outcome Outcome `json:"outcome"`
	// Stage is policy, merge or dry run.
	Stage   string `json:"stage,omitempty"`
	Message string `json:"message,omitempty"`
	// Effective is the effective configuration that the candidate would come to, as YAML, secrets redacted, and Diff how it
	// differs from the one that runs, as a unified diff; empty when it does not. Agents that do not report their effective
	// configuration leave both out.
	Effective string `json:"effective,omitempty"`
	Diff      string `json:"diff,omitempty"`
	// Truncated says that Effective or Diff was too long and left out.
	Truncated bool `json:"truncated,omitempty"`
}

// ParseRequest reads a request. The error is for the asker.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	if len(data) > MaxMessage {
		return r, fmt.Errorf("the request has %d bytes; the limit is %d", len(data), MaxMessage)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return Request{}, fmt.Errorf("the request is not JSON of the form {id, files}: %w", err)
	}
	if r.ID == "" || len(r.ID) > maxID || !utf8.ValidString(r.ID) {
		return Request{}, fmt.Errorf("the request's id must have 1 to %d bytes", maxID)
	}
	if r.Files == nil {
		return Request{ID: r.ID}, errors.New("the request has no files; an empty map asks for the base configuration")
	}
	return r, nil
}

// Compare makes an accepting answer: what would run, beside what runs.
func Compare(id, running, candidate string) Answer {
	a := Answer{ID: id, Outcome: Accepted, Effective: candidate}
	if running != candidate {
		a.Diff = udiff.Unified("running", "candidate", running, candidate)
	}
	if len(a.Effective) > maxText {
		a.Effective, a.Truncated = "", true
	}
	if len(a.Diff) > maxText {
		a.Diff, a.Truncated = "", true
	}
	return a
}

// Encode makes the data of a CustomMessage.
func (a Answer) Encode() ([]byte, error) {
	if len(a.Message) > maxText {
		a.Message = a.Message[:maxText]
	}
	return json.Marshal(a)
}
