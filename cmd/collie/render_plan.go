package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/collie-otel/collie/internal/apiv1"
)

// namesShown is how many agents of a group are named.
const namesShown = 5

func planLine(p apiv1.Plan) string {
	return fmt.Sprintf("asking %s: %d accept, %d refuse, %d cannot tell, %d have not answered",
		count(p.Accepted+p.Refused+p.CannotTell+p.Waiting, "agent"), p.Accepted, p.Refused, p.CannotTell, p.Waiting)
}

// group are agents of one answer.
type group struct {
	key   string
	names []string
}

// groups puts agents with the same key together, the largest group first, equal ones in the order of their first agents.
func groups(agents []apiv1.PlanAgent, outcome string, key func(apiv1.PlanAgent) string) []group {
	var found []group
	at := map[string]int{}
	for _, a := range agents {
		if a.Outcome != outcome {
			continue
		}
		k := key(a)
		i, ok := at[k]
		if !ok {
			i = len(found)
			at[k] = i
			found = append(found, group{key: k})
		}
		found[i].names = append(found[i].names, cmp.Or(a.Name, a.InstanceUID))
	}
	slices.SortStableFunc(found, func(a, b group) int { return len(b.names) - len(a.names) })
	return found
}

// planText says who answered what: counts, reasons, and one diff for all agents that would change in the same way.
func planText(p apiv1.Plan, colours palette) string {
	var b strings.Builder
	if len(p.Agents) == 0 {
		return named(p.Name) + ": concerns no agent that is known here\n"
	}
	fmt.Fprintf(&b, "%s: of %s, %d accept, %d refuse, %d cannot tell\n", named(p.Name), count(len(p.Agents), "agent"),
		p.Accepted, p.Refused, p.CannotTell)
	writeReasons(&b, colours.state(apiv1.OutcomeRefused), groups(p.Agents, apiv1.OutcomeRefused, func(a apiv1.PlanAgent) string {
		return cmp.Or(a.Stage, "refused") + ": " + a.Message
	}))
	writeReasons(&b, colours.state(apiv1.OutcomeCannotTell), groups(p.Agents, apiv1.OutcomeCannotTell, func(a apiv1.PlanAgent) string {
		return a.Message
	}))
	writeDiffs(&b, p.Agents, colours)
	return b.String()
}

func writeReasons(b *strings.Builder, word string, found []group) {
	for _, g := range found {
		reason := clean(strings.TrimSpace(cmp.Or(g.key, "no reason given")))
		fmt.Fprintf(b, "\n%s by %s (%s)\n  %s\n", word, count(len(g.names), "agent"), few(g.names, namesShown),
			strings.ReplaceAll(reason, "\n", "\n  "))
	}
}

// Keys of groups without a diff; a diff begins with neither.
const (
	sameConfig  = "same"
	longChanges = "long"
)

func writeDiffs(b *strings.Builder, agents []apiv1.PlanAgent, colours palette) {
	found := groups(agents, apiv1.OutcomeAccepted, func(a apiv1.PlanAgent) string {
		switch {
		case a.Truncated:
			return longChanges
		case a.Diff == "":
			return sameConfig
		}
		return a.Diff
	})
	for _, g := range found {
		fmt.Fprintf(b, "\n%s by %s (%s)", colours.state(apiv1.OutcomeAccepted), count(len(g.names), "agent"), few(g.names, namesShown))
		switch g.key {
		case sameConfig:
			b.WriteString(", which would not change\n")
		case longChanges:
			b.WriteString(", with more changes than are shown\n")
		default:
			b.WriteString(", which would change:\n" + colours.diff(g.key))
		}
	}
}
