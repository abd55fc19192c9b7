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

// group are agents of one answer; text is the first one's.
type group struct {
	text  string
	names []string
}

// groups puts agents together whose texts have the same essence, the largest group first, equal ones in the order of their first
// agents.
func groups(agents []apiv1.PlanAgent, outcome string, text func(apiv1.PlanAgent) string, essence func(string) string) []group {
	var found []group
	at := map[string]int{}
	for _, a := range agents {
		if a.Outcome != outcome {
			continue
		}
		shown := text(a)
		key := essence(shown)
		i, ok := at[key]
		if !ok {
			i = len(found)
			at[key] = i
			found = append(found, group{text: shown})
		}
		found[i].names = append(found[i].names, cmp.Or(a.Name, a.InstanceUID))
	}
	slices.SortStableFunc(found, func(a, b group) int { return len(b.names) - len(a.names) })
	return found
}

// wordsOf is the essence of a message: its words in order of the alphabet. Collectors list valid values in an order of their own each
// time.
func wordsOf(message string) string {
	words := strings.FieldsFunc(message, func(r rune) bool { return strings.ContainsRune(" \t\n[](),;", r) })
	slices.Sort(words)
	return strings.Join(words, " ")
}

// changesOf is the essence of a diff: the lines that go and come, hunk by hunk. Those around them, and where they are, differ between
// agents that change in the same way.
func changesOf(diff string) string {
	if !strings.HasPrefix(diff, "---") {
		return diff
	}
	var b strings.Builder
	for line := range strings.Lines(diff) {
		switch {
		case strings.HasPrefix(line, "@@"):
			b.WriteString("@@\n")
		case strings.HasPrefix(line, "+"), strings.HasPrefix(line, "-"):
			b.WriteString(line)
		}
	}
	return b.String()
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
		return strings.ReplaceAll(cmp.Or(a.Stage, "refused"), "_", " ") + ": " + a.Message
	}, wordsOf))
	writeReasons(&b, colours.state(apiv1.OutcomeCannotTell), groups(p.Agents, apiv1.OutcomeCannotTell, func(a apiv1.PlanAgent) string {
		return a.Message
	}, wordsOf))
	writeDiffs(&b, p.Agents, colours)
	return b.String()
}

func writeReasons(b *strings.Builder, word string, found []group) {
	for _, g := range found {
		fmt.Fprintf(b, "\n%s by %s (%s)\n", word, count(len(g.names), "agent"), few(g.names, namesShown))
		for _, line := range filled(cmp.Or(g.text, "no reason given")) {
			b.WriteString("  " + named(line) + "\n")
		}
	}
}

// Texts of groups without a diff; a diff begins with neither.
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
	}, changesOf)
	for _, g := range found {
		fmt.Fprintf(b, "\n%s by %s (%s)", colours.state(apiv1.OutcomeAccepted), count(len(g.names), "agent"), few(g.names, namesShown))
		switch g.text {
		case sameConfig:
			b.WriteString(", which would not change\n")
		case longChanges:
			b.WriteString(", with more changes than are shown\n")
		default:
			like := ""
			if len(g.names) > 1 {
				like = ", like " + named(g.names[0])
			}
			b.WriteString(", which would change" + like + ":\n" + colours.diff(g.text))
		}
	}
}
