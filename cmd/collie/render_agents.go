package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
)

// maxErrorText is how much of an error is shown in a table.
const maxErrorText = 100

// attributeRole is what the shipped configurations of managed Collectors say they are for.
const attributeRole = "collie.role"

// agentsTable lists agents; the columns of roles and of errors are there if one has any.
func agentsTable(agents []apiv1.Agent, p palette, now time.Time) string {
	if len(agents) == 0 {
		return ""
	}
	ailing := slices.ContainsFunc(agents, func(a apiv1.Agent) bool { return agentError(a) != "" })
	roles := slices.ContainsFunc(agents, func(a apiv1.Agent) bool { return a.NonIdentifyingAttributes[attributeRole] != "" })
	header := []string{"NAME"}
	if roles {
		header = append(header, "ROLE")
	}
	header = append(header, "UID", p.header("STATE"), "VERSION", "CONFIG", "TRANSPORT", "SEEN")
	if ailing {
		header = append(header, "ERROR")
	}
	t := newTable(header...)
	for _, a := range agents {
		cells := []string{named(agentName(a))}
		if roles {
			cells = append(cells, orDash(a.NonIdentifyingAttributes[attributeRole]))
		}
		cells = append(cells, named(a.InstanceUID), p.state(a.State), orDash(a.Version), configWord(a), orDash(a.Transport), age(a.LastSeen, now))
		if ailing {
			cells = append(cells, cut(agentError(a), maxErrorText))
		}
		t.row(cells...)
	}
	return t.String()
}

// agentsLine counts agents by state, the most urgent first.
func agentsLine(agents []apiv1.Agent) string {
	if len(agents) == 0 {
		return "no agents"
	}
	counts := map[string]int{}
	for _, a := range agents {
		counts[a.State]++
	}
	var parts []string
	for _, state := range []string{"disconnected", "config_failed", "unhealthy", "pending", "drifted", "healthy"} {
		if counts[state] > 0 {
			parts = append(parts, grouped(int64(counts[state]))+" "+state)
		}
	}
	return count(len(agents), "agent") + ": " + strings.Join(parts, ", ")
}

// agentChange is a line about an agent whose state changed.
func agentChange(a apiv1.Agent, before string) string {
	line := a.InstanceUID + " " + agentName(a) + "  "
	if before != "" {
		line += before + " -> "
	}
	line += a.State
	if text := agentError(a); text != "" {
		line += ": " + oneText(text)
	}
	return line
}

// configWord is how far an agent is with its remote configuration, and the beginning of the hash that it is about.
func configWord(a apiv1.Agent) string {
	c := a.RemoteConfig
	switch {
	case a.State == "config_failed" || c.Status == "FAILED":
		hash := c.DesiredHash
		if hash == "" {
			hash = c.ReportedHash
		}
		return strings.TrimSpace("failed " + named(short(hash)))
	case c.ReportedHash != "" && c.Status == "APPLIED" && (c.ReportedHash == c.DesiredHash || c.DesiredHash == "" || a.State == "drifted"):
		return "applied " + named(short(c.ReportedHash))
	case c.DesiredHash != "" && slices.Contains(a.Capabilities, "AcceptsRemoteConfig"):
		return "pending " + named(short(c.DesiredHash))
	}
	return "-"
}

// agentError is the first error of an agent whose state is about one.
func agentError(a apiv1.Agent) string {
	switch a.State {
	case "config_failed":
		return a.RemoteConfig.Error
	case "unhealthy":
		if a.Health == nil {
			return ""
		}
		if ill := illComponents("", *a.Health); len(ill) > 0 {
			return ill[0]
		}
		return a.Health.Status
	}
	return ""
}

// illComponents are the nodes of a health tree with errors, the root first, then by name.
func illComponents(path string, h apiv1.Health) []string {
	var found []string
	if !h.Healthy && h.LastError != "" {
		found = append(found, strings.TrimPrefix(path+": "+h.LastError, ": "))
	}
	for _, name := range slices.Sorted(maps.Keys(h.Components)) {
		found = append(found, illComponents(strings.TrimPrefix(path+"/"+name, "/"), h.Components[name])...)
	}
	return found
}

// agentTable is all about one agent.
func agentTable(a apiv1.Agent, p palette, now time.Time) string {
	t := newTable()
	t.row("name", named(agentName(a)))
	t.row("uid", named(a.InstanceUID))
	t.row("state", p.state(a.State))
	t.row("version", orDash(a.Version))
	if a.Connected {
		t.row("connected", fmt.Sprintf("by %s, for %s", orDash(a.Transport), age(a.ConnectedSince, now)))
	}
	t.row("seen", ago(a.LastSeen, now)+", first "+ago(a.FirstSeen, now))
	remoteRows(t, a, now)
	healthRows(t, a.Health, now)
	if a.ConnectionSettings.OfferedHash != "" || a.ConnectionSettings.ReportedHash != "" {
		t.row("connection settings", statusText(a.ConnectionSettings.Status, a.ConnectionSettings.Error))
	}
	for _, pkg := range a.Packages {
		text := orDash(pkg.Version) + ", " + statusText(pkg.Status, pkg.Error)
		if pkg.OfferedVersion != "" && pkg.OfferedVersion != pkg.Version {
			text += ", offered " + named(pkg.OfferedVersion)
		}
		t.row("package "+named(pkg.Name), text)
	}
	if a.Duplicates > 0 {
		t.row("duplicates", count(a.Duplicates, "other agent")+" came under this UID")
	}
	t.row("capabilities", orDash(strings.Join(append(slices.Clone(a.Capabilities), a.CustomCapabilities...), ", ")))
	return t.String() + attributeTable("IDENTIFYING ATTRIBUTES", a.IdentifyingAttributes) +
		attributeTable("OTHER ATTRIBUTES", a.NonIdentifyingAttributes)
}

func remoteRows(t *table, a apiv1.Agent, now time.Time) {
	c := a.RemoteConfig
	text := configWord(a)
	if c.DesiredHash != "" && !c.OfferedAt.IsZero() {
		text += ", offered " + ago(c.OfferedAt, now)
	}
	t.row("config", text)
	if c.Error != "" {
		t.row("config error", oneText(c.Error))
	}
}

func healthRows(t *table, h *apiv1.Health, now time.Time) {
	if h == nil {
		t.row("health", "not reported")
		return
	}
	text := "healthy"
	if !h.Healthy {
		text = "not healthy"
	}
	if h.Status != "" {
		text += ", " + oneText(h.Status)
	}
	if !h.StartTime.IsZero() {
		text += ", started " + ago(h.StartTime, now)
	}
	t.row("health", text)
	for _, line := range illComponents("", *h) {
		t.row("health error", oneText(line))
	}
}

func statusText(status, err string) string {
	if err == "" {
		return orDash(status)
	}
	return orDash(status) + ": " + oneText(err)
}

func attributeTable(title string, attributes map[string]string) string {
	if len(attributes) == 0 {
		return ""
	}
	t := newTable(title)
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		t.row(named(key), named(attributes[key]))
	}
	return "\n" + t.String()
}

// componentsTable has a line for each kind.
func componentsTable(c apiv1.Components) string {
	t := newTable("KIND", "TYPES")
	for _, kind := range slices.Sorted(maps.Keys(c.Kinds)) {
		t.row(named(kind), named(strings.Join(c.Kinds[kind], ", ")))
	}
	return t.String()
}

// bars draw a series on one line.
var bars = []rune("▁▂▃▄▅▆▇█")

// throughputTable has a line for each series that has a point.
func throughputTable(s apiv1.Series) string {
	filled := false
	t := newTable("PER SECOND", "NOW", "MEAN", "MAX", "LAST HOUR")
	for _, line := range []struct {
		name   string
		points []*float64
	}{
		{"accepted", s.Accepted},
		{"refused", s.Refused},
		{"sent", s.Sent},
		{"failed", s.Failed},
		{"dropped", s.Dropped},
		{"queue (items)", s.Queue},
	} {
		var sum, top, last float64
		n := 0
		for _, p := range line.points {
			if p != nil {
				sum, top, last, n = sum+*p, max(top, *p), *p, n+1
			}
		}
		if n > 0 {
			filled = true
			t.row(line.name, rate(last), rate(sum/float64(n)), rate(top), sparkline(line.points, top))
		}
	}
	if !filled {
		return "no figures yet: the first ones come within a minute\n"
	}
	return t.String()
}

func rate(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return grouped(int64(v + 0.5))
}

// sparkline has at most 60 characters, each the highest of its points.
func sparkline(points []*float64, top float64) string {
	const width = 60
	step := max((len(points)+width-1)/width, 1)
	var b strings.Builder
	for chunk := range slices.Chunk(points, step) {
		high := -1.0
		for _, p := range chunk {
			if p != nil {
				high = max(high, *p)
			}
		}
		switch {
		case high < 0:
			b.WriteByte(' ')
		case top == 0:
			b.WriteRune(bars[0])
		default:
			b.WriteRune(bars[int(high/top*float64(len(bars)-1)+0.5)])
		}
	}
	return b.String()
}
