package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

// maxFailuresShown is how many failed agents are listed.
const maxFailuresShown = 20

// phases in the order that agents go through them.
var phases = []string{"assigned", "applied", "good", "failed", "gone"}

func rolloutsTable(all []apiv1.Rollout, p palette, now time.Time) string {
	if len(all) == 0 {
		return "no rollouts: begin one with collie rollout start NAME\n"
	}
	t := newTable("ID", "VERSION", p.header("STATE"), "WAVE", "AGENTS", "STARTED", "BY", "MESSAGE")
	for _, r := range all {
		t.row(named(r.ID), versionName(r), p.state(r.State), waveText(r), phaseText(r.Counts), age(r.CreatedAt, now),
			orDash(r.Actor), cut(r.Message, maxErrorText))
	}
	return t.String()
}

func versionName(r apiv1.Rollout) string {
	return fmt.Sprintf("%s@%d", named(r.Configuration), r.Version)
}

func rolloutSubject(r apiv1.Rollout) string {
	return fmt.Sprintf("rollout %s of %s", named(r.ID), versionName(r))
}

func waveText(r apiv1.Rollout) string { return fmt.Sprintf("%d of %d", r.Wave, r.WavesTotal) }

// phaseText counts agents by phase, without empty ones.
func phaseText(counts map[string]int) string {
	var parts []string
	for _, phase := range phases {
		if counts[phase] > 0 {
			parts = append(parts, strconv.Itoa(counts[phase])+" "+phase)
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "-")
}

// rolloutLine is the shortest text that changes whenever something happened.
func rolloutLine(r apiv1.Rollout) string {
	line := fmt.Sprintf("%s %s, wave %s", rolloutSubject(r), stateWords(r.State), waveText(r))
	if agents := phaseText(r.Counts); agents != "-" {
		line += ", agents: " + agents
	}
	// Why it ended stands in the result and in the verdict.
	if why := rolloutReason(r); why != "" && !fleet.RolloutState(r.State).Final() {
		line += "; " + why
	}
	return line
}

// stateWords are a state in a sentence.
func stateWords(state string) string {
	switch fleet.RolloutState(state) {
	case fleet.RolloutDone:
		return "has succeeded"
	case fleet.RolloutTakenBack:
		return "was rolled back"
	case fleet.RolloutWasAborted:
		return "was aborted"
	}
	return "is " + orDash(state)
}

// rolloutReason is why a rollout ended as it did, or what it waits for.
func rolloutReason(r apiv1.Rollout) string {
	if r.Message != "" {
		return oneText(r.Message)
	}
	assigned, applied := 0, 0
	for _, a := range r.Agents {
		if a.Phase == "assigned" && !a.Away {
			assigned++
		}
		if a.Phase == "applied" {
			applied++
		}
	}
	switch state := fleet.RolloutState(r.State); {
	case state.Final():
		return ""
	case state == fleet.RolloutIsPaused:
		return "go on with collie rollout resume " + named(r.ID)
	case assigned > 0:
		return "waits for " + count(assigned, "agent") + " to apply it"
	case applied > 0:
		return "watches " + count(applied, "agent") + " for " + orDash(r.Soak)
	}
	return ""
}

// rolloutText is all about one rollout.
func rolloutText(r apiv1.Rollout, p palette, now time.Time) string {
	t := newTable()
	t.row("rollout", named(r.ID))
	from := "nothing"
	if r.FromVersion > 0 {
		from = fmt.Sprintf("version %d", r.FromVersion)
	}
	t.row("version", versionName(r)+", after "+from)
	t.row("state", p.state(r.State))
	if why := rolloutReason(r); why != "" {
		t.row("why", why)
	}
	t.row("how", rolloutPlan(r))
	started := ago(r.CreatedAt, now) + " by " + orDash(r.Actor)
	if !r.FinishedAt.IsZero() {
		started += ", took " + r.FinishedAt.Sub(r.CreatedAt).Round(time.Second).String()
	}
	t.row("started", started)
	t.row("agents", phaseText(r.Counts))
	return t.String() + wavesTable(r) + failuresTable(r)
}

func rolloutPlan(r apiv1.Rollout) string {
	var parts []string
	if r.Canary != "" && r.Canary != "0" {
		parts = append(parts, "canary "+named(r.Canary))
	}
	parts = append(parts, "waves "+cmp.Or(strings.Join(r.Waves, ", "), "100%"), "soak "+orDash(r.Soak), "timeout "+orDash(r.Timeout),
		fmt.Sprintf("%d may fail", r.MaxFailures))
	if r.Force {
		parts = append(parts, "forced")
	}
	return named(strings.Join(parts, "; "))
}

// wavesTable has a line for each wave, those to come included.
func wavesTable(r apiv1.Rollout) string {
	if r.WavesTotal == 0 {
		return ""
	}
	t := newTable("WAVE", "ASSIGNED", "APPLIED", "GOOD", "FAILED", "GONE", "AWAY")
	counts := map[int]map[string]int{}
	for _, a := range r.Agents {
		if counts[a.Wave] == nil {
			counts[a.Wave] = map[string]int{}
		}
		counts[a.Wave][a.Phase]++
		if a.Away {
			counts[a.Wave]["away"]++
		}
	}
	for wave := 1; wave <= r.WavesTotal; wave++ {
		cells := []string{strconv.Itoa(wave)}
		for _, phase := range append(slices.Clone(phases), "away") {
			if wave > r.Wave {
				cells = append(cells, "-")
				continue
			}
			cells = append(cells, strconv.Itoa(counts[wave][phase]))
		}
		t.row(cells...)
	}
	return "\n" + t.String()
}

func failuresTable(r apiv1.Rollout) string {
	t := newTable("FAILED", "WAVE", "MESSAGE")
	n := 0
	for _, a := range r.Agents {
		if a.Phase != "failed" {
			continue
		}
		if n++; n <= maxFailuresShown {
			t.row(named(a.InstanceUID), strconv.Itoa(a.Wave), orDash(oneText(a.Message)))
		}
	}
	if n == 0 {
		return ""
	}
	t.more(n - maxFailuresShown)
	return "\n" + t.String()
}
