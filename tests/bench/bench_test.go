package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

const (
	rate     = 20000 // spans per second: compare only at equal rates, wake-ups count
	warmUp   = 2 * time.Second
	measured = 6 * time.Second
	rounds   = 5
)

// variant is one way to run a Collector; the first of a table is what the others are compared with.
type variant struct {
	name    string
	configs []string
	env     map[string]string
}

// sample is one round of one variant.
type sample struct {
	cpuPerSpan float64 // microseconds of CPU time
	rss        int64   // bytes, anonymous
}

func BenchmarkQueues(b *testing.B) {
	compare(b, []variant{
		{"memory queue, batch processor", []string{"agent.yaml", "agent-fast.yaml", overlay(b, "memory", "exporters: {otlp_grpc/gateway: {sending_queue: {storage: null}}}\n")}, nil},
		{"memory queue, sending_queue.batch", []string{"agent.yaml", overlay(b, "memory2", "exporters: {otlp_grpc/gateway: {sending_queue: {storage: null}}}\n")}, nil},
		{"agent-fast.yaml: disk queue behind the batch processor", []string{"agent.yaml", "agent-fast.yaml"}, nil},
		{"agent.yaml: disk queue, sending_queue.batch", []string{"agent.yaml"}, nil},
	})
}

func BenchmarkCompression(b *testing.B) {
	var variants []variant
	for _, c := range []string{"none", "snappy", "zstd", "gzip"} {
		variants = append(variants, variant{c, []string{"agent.yaml", "agent-fast.yaml"}, map[string]string{"COLLIE_GATEWAY_COMPRESSION": c}})
	}
	compare(b, variants)
}

func BenchmarkGarbageCollection(b *testing.B) {
	configs := []string{"agent.yaml", "agent-fast.yaml"}
	compare(b, []variant{
		{"GOGC=100, Go's default", configs, map[string]string{"GOGC": "100"}},
		{"GOGC=200, ours", configs, nil},
		{"GOGC=400", configs, map[string]string{"GOGC": "400"}},
	})
}

func overlay(b *testing.B, name, content string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), name+".yaml")
	require.NoError(b, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// compare runs the variants in turn, rounds times, and prints the medians. The Collector has core 0, the traffic core 1.
func compare(b *testing.B, variants []variant) {
	pin(b, 1)
	for b.Loop() {
		samples := make([][]sample, len(variants))
		for range rounds {
			for i, v := range variants {
				samples[i] = append(samples[i], run(b, v))
			}
		}
		var table strings.Builder
		w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "VARIANT\tCPU PER SPAN\tRATIO\tMEMORY")
		for i, v := range variants {
			cpu, ratio := median(samples[i], cpuOf), median(ratios(samples[i], samples[0]), cpuOf)
			rss := median(samples[i], func(s sample) float64 { return float64(s.rss) })
			_, _ = fmt.Fprintf(w, "%s\t%.1f us\t%.2f\t%.0f MB\n", v.name, cpu, ratio, rss/1e6)
			b.ReportMetric(ratio, strings.Fields(v.name)[0]+"-"+strconv.Itoa(i)+"-ratio")
		}
		_ = w.Flush()
		b.Logf("%d spans/s for %v, median of %d rounds; ratio: of CPU per span, to the first line of the same round\n%s", rate, measured, rounds, table.String())
	}
}

// run measures one round: a Collector of its own, the load at a fixed rate, a sink that accepts everything.
func run(b *testing.B, v variant) sample {
	b.Helper()
	sink, err := traffic.NewSink(traffic.SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(b, err)
	require.NoError(b, sink.Start(b.Context()))
	defer func() { require.NoError(b, sink.Shutdown(b.Context())) }()
	env := map[string]string{"COLLIE_GATEWAY_ENDPOINT": sink.GRPCEndpoint(), "GOMAXPROCS": "1"}
	for k, value := range v.env {
		env[k] = value
	}
	c := harness.Start(b, harness.Options{Configs: v.configs, Env: env, Prefix: []string{"taskset", "-c", "0"}})
	send := func(d time.Duration) int64 {
		sum, err := traffic.RunLoad(b.Context(), traffic.LoadConfig{Endpoints: []string{c.GRPC()}, Rate: rate, Duration: d})
		require.NoError(b, err)
		require.Equal(b, sum.Sent, sum.Acknowledged, "%v", sum.Errors)
		return sum.Acknowledged
	}
	send(warmUp)
	before := c.CPU()
	spans := send(measured)
	s := sample{cpuPerSpan: float64((c.CPU() - before).Nanoseconds()) / 1e3 / float64(spans), rss: c.RSS()}
	c.Stop()
	return s
}

// pin keeps all threads of this process, those to come included, on one core.
func pin(b *testing.B, core int) {
	b.Helper()
	var set unix.CPUSet
	set.Set(core)
	tasks, err := filepath.Glob("/proc/self/task/*")
	require.NoError(b, err)
	for _, task := range tasks {
		tid, err := strconv.Atoi(filepath.Base(task))
		require.NoError(b, err)
		_ = unix.SchedSetaffinity(tid, &set) // a thread may have ended meanwhile
	}
}

func cpuOf(s sample) float64 { return s.cpuPerSpan }

// ratios relates each round to the same round of the base.
func ratios(samples, base []sample) []sample {
	out := make([]sample, len(samples))
	for i := range samples {
		out[i].cpuPerSpan = samples[i].cpuPerSpan / base[i].cpuPerSpan
	}
	return out
}

func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
