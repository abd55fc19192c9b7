package apiv1

import (
	"encoding/json"
	"time"
)

// RolloutRequest is the body of POST /rollouts.
type RolloutRequest struct {
	Configuration string `json:"configuration"`
	// Version is the newest if absent.
	Version int `json:"version,omitempty"`
	// Canary is a number of agents, as a number or a string, or a string with a percentage: 2, "2", "10%".
	Canary json.RawMessage `json:"canary,omitempty"`
	// Waves are percentages of all agents concerned, increasing: ["10%", "100%"].
	Waves []string `json:"waves,omitempty"`
	// Soak is how long a wave must stay good; absent is 30s. Timeout is how long an agent may take; absent is 5m.
	Soak    *string `json:"soak,omitempty"`
	Timeout *string `json:"timeout,omitempty"`
	// MaxFailures is how many agents may fail before everything goes back.
	MaxFailures int `json:"max_failures,omitempty"`
	// Force offers it also to agents on which the same content failed before.
	Force bool `json:"force,omitempty"`
}

// Rollout is a version on its way to the agents.
type Rollout struct {
	ID            string `json:"id"`
	Configuration string `json:"configuration"`
	Version       int    `json:"version"`
	// FromVersion is what agents go back to; 0 is none.
	FromVersion int `json:"from_version"`
	// State is pending, running, paused, succeeded, rolled_back or aborted.
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
	Actor   string `json:"actor,omitempty"`

	Canary      string   `json:"canary,omitempty"`
	Waves       []string `json:"waves,omitempty"`
	Soak        string   `json:"soak"`
	Timeout     string   `json:"timeout"`
	MaxFailures int      `json:"max_failures"`
	Force       bool     `json:"force,omitempty"`

	CreatedAt  time.Time `json:"created_at"`
	UpdatedAt  time.Time `json:"updated_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`

	// Wave counts the waves begun, the canary included, and WavesTotal all of them.
	Wave       int `json:"wave"`
	WavesTotal int `json:"waves_total"`
	// Counts are agents by phase: assigned, applied, good, failed, gone.
	Counts map[string]int `json:"counts"`
	// Agents are left out of lists.
	Agents []RolloutAgent `json:"agents,omitempty"`
}

// RolloutAgent is an agent that was given the version.
type RolloutAgent struct {
	InstanceUID string `json:"instance_uid"`
	// Phase is assigned, applied, good, failed or gone.
	Phase   string `json:"phase"`
	Wave    int    `json:"wave"`
	Away    bool   `json:"away,omitempty"`
	Message string `json:"message,omitempty"`
}

// Rollouts answers GET /rollouts, the newest first.
type Rollouts struct {
	Rollouts []Rollout `json:"rollouts"`
}
