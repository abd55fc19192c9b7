package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/collie-otel/collie/internal/traffic"
)

// Values of -o.
const (
	formatTable = "table"
	formatJSON  = "json"
)

// Control sequences, written to terminals only.
const (
	eraseLine  = "\r\x1b[K"
	eraseBelow = "\x1b[J"
	cursorUp   = "\x1b[%dA"
	wrapOff    = "\x1b[?7l"
	wrapOn     = "\x1b[?7h"
)

// Rows shown of a long table; the rest is summed up in one row.
const (
	maxServiceRows   = 12
	maxAttributeRows = 16
	maxValuesInRow   = 4
	maxMetricRows    = 12
)

// usualHeight is taken where a terminal does not tell its height.
const usualHeight = 24

// screen redraws a text in place. What does not fit is cut off: lines that have scrolled away cannot be redrawn, and those that
// were wrapped cannot be counted.
type screen struct {
	w      io.Writer
	height func() int // lines of the terminal, 0 when not known
	lines  int        // drawn last
}

func (s *screen) draw(text string) {
	if s.lines > 0 {
		_, _ = fmt.Fprintf(s.w, cursorUp, s.lines)
	}
	height := s.height()
	if height == 0 {
		height = usualHeight
	}
	if lines := strings.SplitAfter(text, "\n"); len(lines) > height {
		text = strings.Join(lines[:height-1], "")
	}
	_, _ = io.WriteString(s.w, eraseBelow+wrapOff+text+wrapOn)
	s.lines = strings.Count(text, "\n")
}

func progressLine(p traffic.Progress) string {
	line := fmt.Sprintf("%5.0fs  sent %s  acknowledged %s  refused %s  failed %s",
		p.Elapsed.Seconds(), grouped(p.Sent), grouped(p.Acknowledged), grouped(p.Refused), grouped(p.Failed))
	if p.Retried > 0 {
		line += "  retried " + grouped(p.Retried)
	}
	return line
}

// loadTable is a summary of a run for people.
func loadTable(s traffic.LoadSummary) string {
	t := newTable()
	t.row("run", s.Run)
	t.row("sent", grouped(s.Sent)+" spans in "+grouped(s.Requests)+" requests")
	t.row("acknowledged", grouped(s.Acknowledged))
	t.row("refused", grouped(s.Refused))
	t.row("failed", grouped(s.Failed))
	t.row("retried", grouped(s.Retried))
	t.row("elapsed", time.Duration(s.ElapsedSeconds*float64(time.Second)).Round(time.Millisecond).String())
	t.row("rate", grouped(int64(s.SpansPerSecond+0.5))+" spans/s")
	t.row("requests took", fmt.Sprintf("p50 %.1f ms, p90 %.1f ms, p99 %.1f ms, max %.1f ms",
		s.DurationMS.P50, s.DurationMS.P90, s.DurationMS.P99, s.DurationMS.Max))
	t.row("traces", inline(s.Traces, len(s.Traces)))
	if len(s.Errors) > 0 {
		t.row("errors", inline(s.Errors, len(s.Errors)))
	}
	if s.LastError != "" {
		t.row("last error", named(s.LastError))
	}
	return t.String()
}

// sinkLine is the shortest summary that changes whenever something arrives.
func sinkLine(s traffic.SinkSummary) string {
	return fmt.Sprintf("%s requests (%s rejected), %s spans (%s duplicates, %s gaps), %s data points, %s log records",
		grouped(s.Requests), grouped(s.Rejected), grouped(s.Spans), grouped(s.Duplicates), grouped(s.Missing),
		grouped(s.DataPoints), grouped(s.LogRecords))
}

// sinkTable is what arrived, for people. Sections without content are left out.
func sinkTable(s traffic.SinkSummary) string {
	var b strings.Builder
	b.WriteString(sinkLine(s) + "\n")
	if s.Unnumbered+s.RunsOverflow > 0 {
		fmt.Fprintf(&b, "%s spans without a number, %s of runs beyond the limit\n", grouped(s.Unnumbered), grouped(s.RunsOverflow))
	}
	sections := []string{tracesSection(s), servicesSection(s), durationsSection(s), attributesSection(s), metricsSection(s)}
	for _, section := range sections {
		if section != "" {
			b.WriteString("\n" + section)
		}
	}
	return b.String()
}

func tracesSection(s traffic.SinkSummary) string {
	if len(s.Traces) == 0 {
		return ""
	}
	t := newTable("TRACES", "WHOLE", "PARTIAL")
	for _, kind := range slices.Sorted(maps.Keys(s.Traces)) {
		t.row(named(kind), grouped(s.Traces[kind].Whole), grouped(s.Traces[kind].Partial))
	}
	return t.String()
}

func servicesSection(s traffic.SinkSummary) string {
	if len(s.Services) == 0 {
		return ""
	}
	t := newTable("SERVICES", "SPANS")
	for _, name := range largest(s.Services, maxServiceRows) {
		t.row(named(name), grouped(s.Services[name]))
	}
	t.more(len(s.Services) - maxServiceRows)
	return t.String()
}

// durationsSection leaves out the empty ends of the histogram.
func durationsSection(s traffic.SinkSummary) string {
	h := s.SpanDurationsMS
	if s.Spans == 0 || len(h.Counts) != len(h.Bounds)+1 {
		return ""
	}
	first, last := 0, len(h.Counts)-1
	for first < last && h.Counts[first] == 0 {
		first++
	}
	for last > first && h.Counts[last] == 0 {
		last--
	}
	t := newTable("SPAN DURATIONS", "SPANS")
	for i := first; i <= last; i++ {
		label := "more"
		if i < len(h.Bounds) {
			label = fmt.Sprintf("to %g ms", h.Bounds[i])
		}
		t.row(label, grouped(h.Counts[i]))
	}
	return t.String()
}

func attributesSection(s traffic.SinkSummary) string {
	if len(s.Attributes) == 0 {
		return ""
	}
	t := newTable("ATTRIBUTES", "VALUES")
	keys := slices.Sorted(maps.Keys(s.Attributes))
	for _, key := range keys[:min(len(keys), maxAttributeRows)] {
		t.row(named(key), inline(s.Attributes[key], maxValuesInRow))
	}
	t.more(len(keys) - maxAttributeRows)
	return t.String()
}

func metricsSection(s traffic.SinkSummary) string {
	if len(s.Metrics) == 0 {
		return ""
	}
	t := newTable("METRICS", "DATA POINTS", "SUM")
	names := slices.Sorted(maps.Keys(s.Metrics))
	for _, name := range names[:min(len(names), maxMetricRows)] {
		t.row(named(name), grouped(s.Metrics[name].DataPoints), fmt.Sprintf("%g", s.Metrics[name].Sum))
	}
	t.more(len(names) - maxMetricRows)
	return t.String()
}

// table aligns columns.
type table struct {
	text   strings.Builder
	writer *tabwriter.Writer
}

func newTable(header ...string) *table {
	t := &table{}
	t.writer = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

// row never fails: the writer below is memory.
func (t *table) row(cells ...string) {
	_, _ = io.WriteString(t.writer, strings.Join(cells, "\t")+"\n")
}

func (t *table) more(n int) {
	if n > 0 {
		t.row(fmt.Sprintf("(%d more)", n))
	}
}

// String leaves out the spaces that pad columns with nothing after them.
func (t *table) String() string {
	_ = t.writer.Flush()
	lines := strings.Split(t.text.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// inline lists counts on one line, the largest first.
func inline(counts map[string]int64, limit int) string {
	var parts []string
	for _, key := range largest(counts, limit) {
		parts = append(parts, named(key)+" "+grouped(counts[key]))
	}
	if rest := len(counts) - limit; rest > 0 {
		parts = append(parts, fmt.Sprintf("(%d more)", rest))
	}
	return strings.Join(parts, ", ")
}

// largest are the keys with the largest counts, equal ones by name.
func largest(counts map[string]int64, limit int) []string {
	keys := slices.Sorted(maps.Keys(counts))
	slices.SortStableFunc(keys, func(a, b string) int {
		switch {
		case counts[a] > counts[b]:
			return -1
		case counts[a] < counts[b]:
			return 1
		}
		return 0
	})
	return keys[:min(len(keys), limit)]
}

// named is a name that people can see. Names come from the wire: control characters would reach the terminal.
func named(s string) string {
	if s == "" {
		return "(none)"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	if n < 0 {
		return "-" + grouped(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}
