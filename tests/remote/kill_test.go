package remote

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// kills is how often a Collector is killed in the middle of an apply.
const kills = 50

// attempt is one configuration that was pushed, and the kill that met it.
type attempt struct {
	hash  string
	good  bool // it would have been applied
	stage string
	at    mark
}

// killed runs one Collector through all its kills.
type killed struct {
	*env
	rand *rand.Rand
	good string // the hash of what is known to be good
	hits map[string]int
}

// A Collector that is killed at any moment of an apply starts again with the last good configuration or with the new one, and
// tells the truth about it.
func TestKilledDuringAnApply(t *testing.T) {
	t.Parallel()
	for _, binary := range binaries {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			t.Parallel()
			testKills(t, binary)
		})
	}
}

func testKills(t testing.TB, binary string) {
	// A good configuration is not to blame for the kills: without this it would be taken back after the third.
	local := strings.NewReplacer("soak: 300ms", "soak: 100ms", "crashes: 3", "crashes: 1000").Replace(base)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	k := &killed{env: start(t, options{base: local, binary: harness.Binary(t, binary)}), rand: rand.New(rand.NewPCG(seed, 0)), hits: map[string]int{}}
	longest := k.warmUp()
	begin := time.Now()
	for n := range kills {
		k.once(n, longest)
	}
	t.Logf("%d kills, up to %v after the push, and a third of them again at the start, took %v:", kills, longest, time.Since(begin).Round(time.Millisecond))
	for _, hit := range slices.Sorted(maps.Keys(k.hits)) {
		t.Logf("%4d  %s", k.hits[hit], hit)
	}
	trials := k.count("trial, ")
	require.GreaterOrEqual(t, trials, kills/10, "the kills missed the applies")
	k.requireWorks("attributes/"+k.good, "batch")
	k.collector.Stop()
}

func (k *killed) count(part string) (n int) {
	for hit, times := range k.hits {
		if strings.Contains(hit, part) {
			n += times
		}
	}
	return n
}

// config is a configuration that can be recognised by its hash.
func config(hash, unruly string) string {
	processors := "attributes/" + hash
	if unruly != "" {
		processors += ", unruly"
		unruly = ", unruly: " + unruly
	}
	return fmt.Sprintf("processors: {attributes/%s: {actions: [{key: config, value: %[1]q, action: upsert}]}%s}\n"+
		"service: {pipelines: {traces: {processors: [%s, batch]}}}", hash, unruly, processors)
}

// warmUp says until when after a push a kill may come: an apply takes longer on a busy machine.
func (k *killed) warmUp() (longest time.Duration) {
	k.t.Helper()
	longest = 120 * time.Millisecond
	for i := range 3 {
		k.good = fmt.Sprint("warm-", i)
		pushed := k.fleet.push(k.good, config(k.good, ""))
		applied := k.fleet.await(0, k.good, "APPLIED")
		longest = max(longest, applied.at.Sub(pushed)*5/4)
	}

	return longest
}

// once pushes a configuration, kills the Collector, starts it again, and looks.
func (k *killed) once(n int, longest time.Duration) {
	k.t.Helper()
	a := attempt{hash: fmt.Sprint("good-", n), good: true, at: k.mark()}
	body := config(a.hash, "")
	switch n % 5 {
	case 2:
		a = attempt{hash: fmt.Sprint("start-", n), stage: "start: ", at: a.at}
		body = config(a.hash, "{on: start, do: error}")
	case 4:
		a = attempt{hash: fmt.Sprint("health-", n), stage: "health: ", at: a.at}
		body = config(a.hash, "{on: ready, do: permanent, after: 1ms}")
	}
	k.fleet.push(a.hash, body)
	k.killWithin(longest)
	heard := k.heardOf(a)
	disk := k.state()
	hit := k.phase(a, disk)
	k.hits[hit]++
	if n%3 == 0 { // and once more, while it starts
		k.collector.Launch()
		k.killWithin(longest)
	}

	a.at = k.mark()
	k.collector.Start()
	k.requireTruth(a, hit, heard, disk)
}

// killWithin kills the Collector at some moment.
func (k *killed) killWithin(longest time.Duration) {
	k.t.Helper()
	time.Sleep(time.Duration(k.rand.Int64N(int64(longest))))
	k.collector.Kill()
	k.fleet.awaitGone()
}

// heardOf is what the server has heard of an attempt before the kill.
func (k *killed) heardOf(a attempt) (last string) {
	for _, w := range k.fleet.said()[a.at.said:] {
		if w.hash == a.hash {
			last = w.status
		}
	}
	return last
}

// phase is where the kill has hit: as the state file says, and for a trial as the log says.
func (k *killed) phase(a attempt, disk onDisk) string {
	switch {
	case disk.Trial != nil:
		return "trial, " + k.trialPhase(a)
	case disk.Good.name() == a.hash:
		return "promoted"
	case disk.refused(a.hash):
		return "refused, " + strings.TrimSuffix(a.stage, ": ")
	}
	return "before the trial"
}

func (k *killed) trialPhase(a attempt) string {
	switch {
	case k.logged(a.at.log, "Everything is ready") > 0:
		return "soaking"
	case k.logged(a.at.log, "Starting extensions") > 0:
		return "starting"
	case k.logged(a.at.log, "Starting shutdown") > 0:
		return "old one stopping"
	}
	return "reload asked for"
}

// requireTruth holds together what is on disk, what the agent says and what runs, after the restart.
func (k *killed) requireTruth(a attempt, hit, heard string, disk onDisk) {
	k.t.Helper()
	what := fmt.Sprintf("%s, %s; heard %q; on disk %+v", a.hash, hit, heard, disk)
	want := word{hash: string(disk.Status.Hash), status: disk.Status.Outcome}
	switch hit {
	case "promoted":
		require.True(k.t, a.good, what)
		require.Equal(k.t, word{status: "APPLIED", hash: a.hash}, want, what)
		k.good = a.hash
	case "before the trial":
		require.Empty(k.t, heard, what)
	default:
		require.NotEqual(k.t, "APPLIED", heard, what)
		want = word{status: "FAILED", hash: a.hash}
	}
	stage := a.stage
	if disk.Trial != nil {
		require.Equal(k.t, a.hash, disk.Trial.name(), what)
		stage = "crash: "
	}
	said := k.fleet.await(a.at.said, want.hash, want.status)
	if want.hash == a.hash && want.status == "FAILED" {
		require.True(k.t, strings.HasPrefix(said.message, stage), "%s: %s", what, said.message)
	}
	k.awaitProcessors("attributes/"+k.good, "batch")
	for _, w := range k.fleet.said()[a.at.said:] {
		require.Equal(k.t, said.hash+said.status, w.hash+w.status, "%s: the agent changed its mind", what)
	}
	now := k.state()
	require.Equal(k.t, k.good, now.Good.name(), what)
	require.Nil(k.t, now.Trial, what)
	require.Equal(k.t, want.hash+want.status, string(now.Status.Hash)+now.Status.Outcome, what)
	require.Equal(k.t, want.status == "FAILED" && want.hash == a.hash, now.refused(a.hash), what)
}
