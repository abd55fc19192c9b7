package api

import (
	"maps"
	"slices"
	"strconv"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func fromConfiguration(c *fleet.Configuration, v *fleet.Version) apiv1.Configuration {
	return apiv1.Configuration{
		Name: c.Name, Version: v.Number, Selector: v.Selector.String(), Priority: v.Priority, Body: string(v.Body), Hash: v.Hash,
		Author: v.Author, ReleasedVersion: c.Released.Version, CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt,
	}
}

func fromVersion(v *fleet.Version, released int) apiv1.Version {
	return apiv1.Version{
		Configuration: v.Configuration, Version: v.Number, Selector: v.Selector.String(), Priority: v.Priority,
		Body: string(v.Body), Hash: v.Hash, Author: v.Author, CreatedAt: v.CreatedAt, Released: v.Number == released,
	}
}

// fromRollout is a rollout without its agents.
func fromRollout(r *fleet.Rollout) apiv1.Rollout {
	out := apiv1.Rollout{
		ID: r.ID, Configuration: r.Configuration, Version: r.To.Version, FromVersion: r.From.Version,
		State: string(r.State), Message: r.Message, Actor: r.Actor,
		Soak: r.Spec.Soak.String(), Timeout: r.Spec.Timeout.String(), MaxFailures: r.Spec.MaxFailures, Force: r.Spec.Force,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, FinishedAt: r.FinishedAt,
		Wave: r.Wave, WavesTotal: r.Spec.WavesTotal(), Counts: map[string]int{},
	}
	if r.Spec.Canary != (fleet.Amount{}) {
		out.Canary = r.Spec.Canary.String()
	}
	for _, percent := range r.Spec.Waves {
		out.Waves = append(out.Waves, strconv.Itoa(percent)+"%")
	}
	for _, phase := range []fleet.Phase{fleet.PhaseAssigned, fleet.PhaseApplied, fleet.PhaseGood, fleet.PhaseFailed, fleet.PhaseGone} {
		out.Counts[string(phase)] = 0
	}
	for _, t := range r.Targets {
		out.Counts[string(t.Phase)]++
	}
	return out
}

// fromRolloutWhole is a rollout with its agents, by uid.
func fromRolloutWhole(r *fleet.Rollout) apiv1.Rollout {
	out := fromRollout(r)
	for _, uid := range slices.Sorted(maps.Keys(r.Targets)) {
		t := r.Targets[uid]
		out.Agents = append(out.Agents, apiv1.RolloutAgent{
			InstanceUID: uid, Phase: string(t.Phase), Wave: t.Wave, Away: t.Away, Message: t.Message,
		})
	}
	return out
}

func fromToken(t *store.Token) apiv1.Token {
	out := apiv1.Token{ID: t.ID, Role: t.Role, Agent: t.Agent, CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt}
	if t.Uses >= 0 {
		out.Uses = &t.Uses
	}
	return out
}

const redacted = "[redacted]"

// fromConnection is a connection without its secrets. What was given is not changed.
func fromConnection(c apiv1.Connection) apiv1.Connection {
	if c.OpAMP != nil {
		copied := *c.OpAMP
		copied.Headers = withoutValues(copied.Headers)
		c.OpAMP = &copied
	}
	for _, d := range []**apiv1.Destination{&c.OwnMetrics, &c.OwnTraces, &c.OwnLogs} {
		if *d != nil {
			copied := **d
			copied.Headers = withoutValues(copied.Headers)
			*d = &copied
		}
	}
	c.Other = maps.Clone(c.Other)
	for name, d := range c.Other {
		d.Headers = withoutValues(d.Headers)
		c.Other[name] = d
	}
	return c
}

func withoutValues(headers map[string]string) map[string]string {
	headers = maps.Clone(headers)
	for name := range headers {
		headers[name] = redacted
	}
	return headers
}
