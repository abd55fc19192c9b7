package bench

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
	"github.com/collie-otel/collie/tests/swarm"
)

// The fleet, and what is done with it. COLLIE_BENCH_AGENTS makes it smaller or larger, and all numbers with it.
const (
	fleetAgents  = 10_000
	fleetRings   = 20 // agents of a ring: 500
	fleetIdle    = time.Minute
	fleetQueries = 500
)

// patience is how long anything may take before the benchmark gives up.
const patience = 2 * time.Minute

// controlPlane is a server in a process of its own, and a fleet in this one.
type controlPlane struct {
	*testing.B
	server *harness.Server
	swarm  *swarm.Swarm
	agents int
	rows   []row
}

// row is a line of the table.
type row struct{ what, reached, bound string }

func (c *controlPlane) row(what, bound, format string, args ...any) {
	c.rows = append(c.rows, row{what, fmt.Sprintf(format, args...), bound})
}

// BenchmarkControlPlane runs a fleet against `collie server --dev`: 2 KiB of status, 10 KiB of effective configuration, heartbeats
// every 30 s, uncompressed WebSocket, both processes on the same cores.
func BenchmarkControlPlane(b *testing.B) {
	for b.Loop() {
		c := &controlPlane{B: b, agents: fleetAgents}
		if text := os.Getenv("COLLIE_BENCH_AGENTS"); text != "" {
			var err error
			c.agents, err = strconv.Atoi(text)
			require.NoError(b, err)
		}
		c.start()
		b.Cleanup(func() { b.Logf("%s", c.table()) }) // whichever stage fails
		for _, stage := range []func(){c.connect, c.idle, c.list, c.reconnect, c.rollOut, c.plan} {
			stage()
		}
		c.swarm.Close()
		c.server.MustStop()
	}
}

func (c *controlPlane) start() {
	c.Helper()
	c.server = harness.StartServer(c, harness.ServerOptions{})
	var err error
	c.swarm, err = swarm.New(swarm.Config{URL: c.server.WebSocket(), Agents: c.agents, Attributes: func(i int) (map[string]string, map[string]string) {
		return map[string]string{"service.name": "otelcol-collie", "service.version": "0.159.0"}, map[string]string{
			"os.type": "linux", "host.name": fmt.Sprintf("host-%05d", i), "half": strconv.Itoa(i % 2), "ring": strconv.Itoa(i % fleetRings),
			"deployment.environment": []string{"prod", "prod", "prod", "stage"}[i%4],
		}
	}})
	require.NoError(c, err)
	c.Cleanup(c.swarm.Close)
}

func (c *controlPlane) table() string {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "WHAT\tBOUND\tREACHED")
	for _, r := range c.rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", r.what, r.bound, r.reached)
	}
	_ = w.Flush()
	return fmt.Sprintf("%d agents\n%s", c.agents, table.String())
}

func (c *controlPlane) connect() {
	times, err := c.swarm.Connect(c.Context(), 64)
	require.NoError(c, err)
	c.await("all agents listed", func() (int, int) { return c.server.Agents("limit", "1").Total, c.agents })
	c.row("first connection of all, 1,000/s offered", "", "%v, p99 %v, %d refused", round(times.All), round(quantile(times.Each, 0.99)), times.Refused)
}

// idle is a fleet that only beats.
func (c *controlPlane) idle() {
	time.Sleep(10 * time.Second) // what connecting left behind settles
	cpu, begin, beats := c.server.CPU(), time.Now(), c.swarm.Counters().Heartbeats.Load()
	var largest int64
	for time.Since(begin) < fleetIdle {
		largest = max(largest, c.server.ResidentSet())
		time.Sleep(time.Second)
	}
	cores := (c.server.CPU() - cpu).Seconds() / time.Since(begin).Seconds()
	c.row("server's memory, largest of a minute", "300 MB", "%.0f MB", float64(largest)/1e6)
	c.row("server's CPU over that minute", "0.3 cores", "%.3f cores, %d heartbeats", cores, c.swarm.Counters().Heartbeats.Load()-beats)
	c.ReportMetric(float64(largest)/1e6, "MB")
	c.ReportMetric(cores, "cores")
}

// list asks for agents by selector while they beat.
func (c *controlPlane) list() {
	var each []time.Duration
	total := 0
	for i := range fleetQueries {
		selector := fmt.Sprintf("ring=%d,deployment.environment in (prod,stage),!legacy", i%fleetRings)
		begin := time.Now()
		total = c.server.Agents("selector", selector, "limit", "100").Total
		each = append(each, time.Since(begin))
	}
	slices.Sort(each)
	c.row(fmt.Sprintf("agents by selector: %d of them, a page of 100", total), "p99 50 ms", "p50 %v, p99 %v", round(quantile(each, 0.5)), round(quantile(each, 0.99)))
}

// reconnect loses half of the fleet at once, which comes back at once.
func (c *controlPlane) reconnect() {
	half := c.agents / 2
	full := c.swarm.Counters().FullState.Load()
	require.Equal(c, half, c.swarm.Drop(half))
	c.await("half of the agents away", func() (int, int) { return c.server.Agents("state", "disconnected", "limit", "1").Total, half })
	cpu := c.server.CPU()
	times, err := c.swarm.Reconnect(c.Context(), half)
	require.NoError(c, err)
	c.row(fmt.Sprintf("%d reconnect at once: all are served", half), "15 s", "%v, p50 %v, %d refused, %v of CPU", round(times.All), round(quantile(times.Each, 0.5)), times.Refused, round(c.server.CPU()-cpu))
	c.row("asked for everything again", "0", "%d", c.swarm.Counters().FullState.Load()-full)
}

// rollOut brings one configuration to half of the fleet in one wave.
func (c *controlPlane) rollOut() {
	half := int64(c.agents / 2)
	counters := c.swarm.Counters()
	offers, applied := counters.Offers.Load(), counters.Applied.Load()
	begin := time.Now()
	rollout := c.server.RollOut("half", "half=1", "processors: {attributes/rolled: {actions: [{key: rolled, value: out, action: upsert}]}}\n")
	c.await("all offered", func() (int, int) { return int(counters.Offers.Load() - offers), int(half) })
	offered := time.Since(begin)
	c.await("all applied", func() (int, int) { return int(counters.Applied.Load() - applied), int(half) })
	done := time.Since(begin)
	c.server.AwaitRollout(rollout.ID, "succeeded", patience)
	c.row(fmt.Sprintf("a configuration for %d agents: all are offered it", half), "5 s", "%v", round(offered))
	c.row("all have applied it; the rollout succeeded", "", "%v; %v", round(done), round(time.Since(begin)))
	if repeated := counters.RepeatedOffers.Load(); repeated > 0 {
		c.row("offered more than once", "", "%d", repeated)
	}
}

// plan asks the agents of one ring.
func (c *controlPlane) plan() {
	selector, begin := "ring=3", time.Now()
	var plan apiv1.Plan
	c.server.Must(http.MethodPost, "/plans", apiv1.PlanRequest{Name: "ring", Selector: &selector, Body: "processors: {batch: {}}\n"}, &plan)
	for id := plan.ID; plan.State != "done" && time.Since(begin) < patience; {
		time.Sleep(20 * time.Millisecond)
		plan = apiv1.Plan{}
		c.server.Must(http.MethodGet, "/plans/"+id, nil, &plan)
	}
	c.row(fmt.Sprintf("a plan over %d agents", len(plan.Agents)), "5 s", "%v: %d accept, %d refuse, %d cannot tell", round(time.Since(begin)), plan.Accepted, plan.Refused, plan.CannotTell)
}

// await waits for a number to be reached, and fails with the last one.
func (c *controlPlane) await(what string, now func() (have, want int)) {
	c.Helper()
	var have, want int
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Millisecond) {
		if have, want = now(); have >= want {
			return
		}
	}
	c.Fatalf("%s: %d of %d after %v", what, have, want, patience)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
