package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

const formatYAML = "yaml"

// outputFlag adds -o to a command that shows something; session.show heeds it.
func outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringP("output", "o", formatTable, "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{formatTable, formatJSON, formatYAML},
		cobra.ShellCompDirectiveNoFileComp))
}

func checkFormat(format string) error {
	if format == formatTable || format == formatJSON || format == formatYAML {
		return nil
	}
	return fmt.Errorf("--output must be table, json or yaml, got %q", format)
}

// show writes a document of the API as it is, or what text makes of it for people.
func (c *session) show(document any, text func(p palette, now time.Time) string) error {
	var err error
	switch c.format {
	case formatJSON:
		err = writeJSON(c.s.out, document)
	case formatYAML:
		var content []byte
		if content, err = yaml.Marshal(document); err == nil {
			_, err = c.s.out.Write(content)
		}
	default:
		_, err = io.WriteString(c.s.out, text(c.palette(), time.Now()))
	}
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// palette colours words, on terminals only.
type palette bool

// Colours, as parameters of SGR. All have two digits, so that words of one column stay aligned.
const (
	red     = "31"
	green   = "32"
	yellow  = "33"
	cyan    = "36"
	faint   = "90"
	ordered = "39"
)

func (c *session) palette() palette {
	_, terminal := terminalOf(c.s.out)
	return palette(terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (p palette) paint(colour, text string) string {
	if !p {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// header is the head of a column of coloured words: it needs as many control characters as they have.
func (p palette) header(text string) string { return p.paint(ordered, text) }

// state colours the states of agents and rollouts, the phases of a rollout's agents and the outcomes of plans.
func (p palette) state(word string) string {
	colour := ordered
	switch word {
	case "healthy", "succeeded", "good", "accepted", "running":
		colour = green
	case "unhealthy", "config_failed", "rolled_back", "failed", "refused":
		colour = red
	case "drifted", "pending", "paused", "cannot_tell", "assigned", "applied":
		colour = yellow
	case "disconnected", "aborted", "gone":
		colour = faint
	}
	return p.paint(colour, named(word))
}

// diff colours a unified diff. Control characters of it do not reach a terminal.
func (p palette) diff(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		shown := ""
		if line != "" {
			shown = clean(line)
		}
		switch {
		case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"), shown == "":
		case line[0] == '-':
			shown = p.paint(red, shown)
		case line[0] == '+':
			shown = p.paint(green, shown)
		case line[0] == '@':
			shown = p.paint(cyan, shown)
		}
		b.WriteString(shown + "\n")
	}
	return b.String()
}

// clean is named for texts with lines and tabs, which may be empty.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return []rune(named(string(r)))[0]
	}, text)
}

// verbatim is a text byte for byte, but for what would reach a terminal.
func (c *session) verbatim(text string) string {
	if _, terminal := terminalOf(c.s.out); terminal {
		return clean(text)
	}
	return text
}

// orDash is named with a dash for nothing, for the cells of tables.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return named(text)
}

// age is how long ago, in the largest unit that fits.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(now.Sub(t), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// ago is age in a sentence.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return age(t, now) + " ago"
}

// short is enough of a hash to tell it from others.
func short(hash string) string { return hash[:min(len(hash), 8)] }

// cut keeps a text to a number of characters on one line. Lines that only introduce the next one go first.
func cut(text string, limit int) string {
	lines := filled(text)
	for len(lines) > 1 && strings.HasSuffix(lines[0], ":") {
		lines = lines[1:]
	}
	runes := []rune(oneText(strings.Join(lines, "\n")))
	if len(runes) <= limit {
		return string(runes)
	}
	return string(runes[:limit-1]) + "…"
}

// oneText is a text on one line.
func oneText(text string) string {
	joined := strings.Join(filled(text), "; ")
	if joined == "" {
		return ""
	}
	return named(strings.ReplaceAll(joined, ":; ", ": "))
}

// filled are the lines of a text that are not empty, without space around them.
func filled(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// few lists the first names, and says how many there are besides.
func few(names []string, limit int) string {
	shown := make([]string, 0, limit)
	for _, name := range names[:min(len(names), limit)] {
		shown = append(shown, named(name))
	}
	text := strings.Join(shown, ", ")
	if rest := len(names) - limit; rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}

// count writes "1 agent" and "2 agents".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(int64(n)) + " " + noun + "s"
}
