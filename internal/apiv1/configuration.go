package apiv1

import "time"

// Configuration is a name with its newest version, and the version that agents get.
type Configuration struct {
	Name string `json:"name"`
	// Version is the newest version, which Selector, Priority, Body, Hash and Author belong to. Body is left out of lists.
	Version  int    `json:"version"`
	Selector string `json:"selector"`
	Priority int    `json:"priority"`
	Body     string `json:"body,omitempty"`
	Hash     string `json:"hash"`
	Author   string `json:"author,omitempty"`
	// ReleasedVersion is the last version fully rolled out, 0 before the first.
	ReleasedVersion int       `json:"released_version"`
	CreatedAt       time.Time `json:"created_at"`
	UpdatedAt       time.Time `json:"updated_at"`
}

// Configurations answers GET /configurations.
type Configurations struct {
	Configurations []Configuration `json:"configurations"`
}

// SaveConfiguration is the body of PUT /configurations/{name}.
type SaveConfiguration struct {
	Selector string `json:"selector"`
	Priority int    `json:"priority"`
	Body     string `json:"body"`
}

// Version is an immutable version of a configuration. Body is left out of lists.
type Version struct {
	Configuration string    `json:"configuration"`
	Version       int       `json:"version"`
	Selector      string    `json:"selector"`
	Priority      int       `json:"priority"`
	Body          string    `json:"body,omitempty"`
	Hash          string    `json:"hash"`
	Author        string    `json:"author,omitempty"`
	CreatedAt     time.Time `json:"created_at"`
	Released      bool      `json:"released"`
}

// Versions answers GET /configurations/{name}/versions, the newest first.
type Versions struct {
	Versions []Version `json:"versions"`
}

// PlanRequest is the body of POST /plans. An absent selector is that of the newest version, or all agents for a new name; an absent
// priority likewise, or 0.
type PlanRequest struct {
	Name     string  `json:"name"`
	Selector *string `json:"selector,omitempty"`
	Priority *int    `json:"priority,omitempty"`
	Body     string  `json:"body"`
}

// Outcomes of a plan for one agent.
const (
	OutcomeWaiting    = "waiting"     // asked, no answer yet
	OutcomeAccepted   = "accepted"    // it would apply it
	OutcomeRefused    = "refused"     // Stage and Message say where and why
	OutcomeCannotTell = "cannot_tell" // Message says why: lacks the capability, is away, did not answer
)

// Plan is what a candidate would do, agent by agent.
type Plan struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// State is running or done.
	State      string    `json:"state"`
	CreatedAt  time.Time `json:"created_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Accepted   int       `json:"accepted"`
	Refused    int       `json:"refused"`
	CannotTell int       `json:"cannot_tell"`
	Waiting    int       `json:"waiting"`
	// Agents are in the order of their UIDs.
	Agents []PlanAgent `json:"agents"`
}

// PlanAgent is one agent's answer.
type PlanAgent struct {
	InstanceUID string `json:"instance_uid"`
	// Name is the agent's host.name, else its service.instance.id, else its uid.
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	// Stage is policy, merge, dry_run or state.
	Stage   string `json:"stage,omitempty"`
	Message string `json:"message,omitempty"`
	// Diff is a unified diff from what runs to what would run, empty if nothing changes.
	Diff string `json:"diff,omitempty"`
	// Truncated: the diff was too long to send.
	Truncated bool `json:"truncated,omitempty"`
}
