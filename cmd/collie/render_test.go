package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "write it with go test ./cmd/collie -update")
	require.Equal(t, string(want), got)
	require.NotContains(t, got, "\x1b")
}

func TestTables(t *testing.T) {
	t.Parallel()
	golden(t, "load", loadTable(traffic.LoadSummary{
		Run: "0badcafe", Sent: 1234567, Acknowledged: 1234000, Refused: 500, Failed: 67, Retried: 12, Requests: 12346,
		ElapsedSeconds: 61.2345678, SpansPerSecond: 20152.4, DurationMS: traffic.Percentiles{P50: 1.23, P90: 4.5, P99: 67.8, Max: 901},
		Errors: map[string]int64{"grpc Unavailable": 5, "connect": 1}, Traces: map[string]int64{"fast": 105000, "slow": 12000, "error": 6457},
		LastError: "the queue\x1b[2J is full",
	}))
	golden(t, "load_clean", loadTable(traffic.LoadSummary{Run: "0badcafe", Sent: 10, Acknowledged: 10, Requests: 1, Traces: map[string]int64{"fast": 1}}))
	golden(t, "sink_empty", sinkTable(traffic.SinkSummary{}))
	golden(t, "sink", sinkTable(sinkExample()))
	golden(t, "progress", progressLine(traffic.Progress{Elapsed: 12300 * time.Millisecond, Sent: 5000, Acknowledged: 4000, Refused: 3, Failed: 2, Retried: 100})+"\n")
}

func sinkExample() traffic.SinkSummary {
	services := map[string]int64{"": 1}
	attributes := map[string]map[string]int64{}
	metrics := map[string]traffic.MetricSummary{}
	for i := range 20 {
		name := string(rune('a' + i))
		services["service-"+name] = int64(1000 * i)
		attributes["key."+name] = map[string]int64{"GET": 10, "POST": 5, "PUT": 5, "\x1b[2J": 3, "PATCH": 1, "(other)": 100}
		metrics["metric."+name] = traffic.MetricSummary{DataPoints: int64(i), Sum: 1.5 * float64(i)}
	}
	return traffic.SinkSummary{
		Requests: 1000, Rejected: 5, Spans: 100000, Distinct: 99990, Duplicates: 10, Missing: 7, Unnumbered: 3, RunsOverflow: 1,
		DataPoints: 190, LogRecords: 4, Services: services, Attributes: attributes, Metrics: metrics,
		Traces: map[string]traffic.TraceCount{"fast": {Whole: 8500, Partial: 1}, "slow": {Whole: 1000}, "error": {Whole: 499}},
		SpanDurationsMS: traffic.Histogram{
			Bounds: []float64{5, 10, 25, 50, 100, 250, 500, 600, 1000, 2500}, Counts: []int64{0, 0, 1000, 0, 5, 6, 7, 8, 9, 0, 0},
		},
	}
}

func TestScreenRedrawsInPlaceAndFitsTheTerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &screen{w: &out, height: func() int { return 4 }}
	s.draw("1\n2\n")
	s.draw("1\n2\n3\n4\n5\n")
	s.draw("")
	const begin, end = "\x1b[J\x1b[?7l", "\x1b[?7h"
	require.Equal(t, begin+"1\n2\n"+end+"\x1b[2A"+begin+"1\n2\n3\n"+end+"\x1b[3A"+begin+end, out.String())
	unknown := &screen{w: &out, height: func() int { return 0 }}
	unknown.draw(strings.Repeat("x\n", 100))
	require.Equal(t, usualHeight-1, unknown.lines)
}

func TestGrouped(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1002003: "1,002,003", -1234: "-1,234"} {
		require.Equal(t, want, grouped(n))
	}
}
