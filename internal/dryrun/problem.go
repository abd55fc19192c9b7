package dryrun

import (
	"regexp"
	"slices"
	"strings"
)

// problem is an error of the Collector in words that are the same for the same mistake: the core lists what it knows in the random
// order of a map, and people compare what a fleet says.
type problem struct {
	text string
	err  error
}

func (p *problem) Error() string { return p.text }
func (p *problem) Unwrap() error { return p.err }

var (
	known     = regexp.MustCompile(`\(valid values: \[([^\]]*)\]\)`)
	emptyLine = regexp.MustCompile(`:\s*\n\s*\n?`)
)

// steady makes a problem of an error.
func steady(err error) error {
	if err == nil {
		return nil
	}
	text := known.ReplaceAllStringFunc(err.Error(), func(list string) string {
		types := strings.Fields(known.FindStringSubmatch(list)[1])
		slices.Sort(types)
		return "(valid values: [" + strings.Join(types, " ") + "])"
	})
	return &problem{emptyLine.ReplaceAllString(text, ": "), err}
}
