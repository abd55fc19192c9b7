package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
)

func configsTable(all []apiv1.Configuration, now time.Time) string {
	if len(all) == 0 {
		return "no configurations: save one with collie config apply -f FILE --name NAME\n"
	}
	t := newTable("NAME", "NEWEST", "ROLLED OUT", "PRIORITY", "SELECTOR", "CHANGED", "BY")
	for _, c := range all {
		released := "-"
		if c.ReleasedVersion > 0 {
			released = strconv.Itoa(c.ReleasedVersion)
		}
		t.row(named(c.Name), strconv.Itoa(c.Version), released, strconv.Itoa(c.Priority), selectorText(c.Selector),
			age(c.UpdatedAt, now), orDash(c.Author))
	}
	return t.String()
}

func versionsTable(versions []apiv1.Version, now time.Time) string {
	t := newTable("VERSION", "ROLLED OUT", "PRIORITY", "SELECTOR", "HASH", "SAVED", "BY")
	for _, v := range versions {
		released := "-"
		if v.Released {
			released = "now"
		}
		t.row(strconv.Itoa(v.Version), released, strconv.Itoa(v.Priority), selectorText(v.Selector), orDash(short(v.Hash)),
			age(v.CreatedAt, now), orDash(v.Author))
	}
	return t.String()
}

// versionLine is what belongs to the body of a version, as a comment of YAML.
func versionLine(v apiv1.Version, now time.Time) string {
	line := fmt.Sprintf("# %s@%d for %s, priority %d, saved %s by %s", named(v.Configuration), v.Version, selectorText(v.Selector),
		v.Priority, ago(v.CreatedAt, now), orDash(v.Author))
	if v.Released {
		line += ", rolled out"
	}
	return line
}

func selectorText(selector string) string {
	if selector == "" {
		return "all agents"
	}
	return named(selector)
}
