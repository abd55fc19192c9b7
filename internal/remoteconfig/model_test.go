package remoteconfig

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// modelSeeds is how many random lives are lived; COLLIE_MODEL_SEEDS changes it.
const modelSeeds = 150

// A Collector to which anything happens at any time. Whatever came before, in the end: something runs; the last word on the
// last offer is APPLIED and that runs, or FAILED and it does not; nothing that is known to be bad, or that a process died of
// in its trial, was started again; each Retrieve's watcher was called once at most (the last two: see sawStart and setup).
func TestAnythingAtAnyTime(t *testing.T) {
	seeds := modelSeeds
	if n, err := strconv.Atoi(os.Getenv("COLLIE_MODEL_SEEDS")); err == nil {
		seeds = n
	}
	for _, runner := range []bool{true, false} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("runner %v/seed %d", runner, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { live(t, newMachine(t, runner), rand.New(rand.NewPCG(uint64(seed), 0))) })
			})
		}
	}
}

// life is the server's and the person's memory of one random life.
type life struct {
	*machine
	random  *rand.Rand
	offers  int
	current string            // offered last
	does    map[string]string // what the offered ones do
	base    int
	story   []string
}

func live(t *testing.T, w *machine, random *rand.Rand) {
	l := &life{machine: w, random: random, does: map[string]string{}, base: 1}
	w.boot()
	for range 12 {
		l.step()
		w.run(time.Duration(random.IntN(3)*random.IntN(15)*random.IntN(1000)) * time.Millisecond)
	}
	if t.Failed() {
		t.Logf("%q", l.story)
		return
	}
	l.settle()
}

// step is the next thing that happens.
func (l *life) step() {
	kinds := []string{"", "", "", "dry run", "start", "unmarshal", "extension", "sick", "flaky", "fatal", "hang", "panic", "slow", "shutdown", "fatal at the end"}
	note := func(format string, args ...any) { l.story = append(l.story, fmt.Sprintf(format, args...)) }
	switch l.random.IntN(13) {
	case 0, 1, 2, 3:
		l.offers++
		l.current = fmt.Sprintf("G%d", l.offers)
		l.does[l.current] = kinds[l.random.IntN(len(kinds))]
		note("offer %s %q", l.current, l.does[l.current])
		l.offer(l.current, l.does[l.current])
	case 4:
		if l.offers > 0 {
			l.current = fmt.Sprintf("G%d", 1+l.random.IntN(l.offers))
			note("offer again %s", l.current)
			l.offer(l.current, l.does[l.current])
		}
	case 5:
		note("SIGHUP")
		select {
		case l.process.signals <- "HUP":
		default:
		}
	case 6:
		l.base++
		do := []string{"", "", "dry run", "start", "unmarshal"}[l.random.IntN(5)]
		note("base %d %q", l.base, do)
		l.machine.base(strconv.Itoa(l.base), do)
	case 7:
		note("base is no YAML")
		l.write("[")
	case 8:
		note("SIGTERM")
		if !l.hangs() {
			_ = l.stop()
			l.boot()
		}
	case 9:
		note("kill -9")
		l.kill()
	case 10:
		n := l.random.Int32N(4) + 1
		note("kill -9 at write %d", n)
		l.killAfter.Store(l.random.IntN(2) == 0)
		l.killIn.Store(n)
	case 11:
		l.drain.Store(int64(l.random.IntN(4)) * int64(time.Second))
		note("drain %d", l.drain.Load())
	case 12:
		l.execFails.Store(!l.execFails.Load())
		note("exec fails: %v", l.execFails.Load())
	}
}

// hangs says whether a SIGTERM would not be heard now.
func (l *life) hangs() bool {
	l.process.mu.Lock()
	defer l.process.mu.Unlock()
	return !l.process.ready
}

// settle lets everything come to its end, and looks at it.
func (l *life) settle() {
	l.killIn.Store(0)
	l.base++
	l.machine.base(strconv.Itoa(l.base), "") // a good base file
	l.run(time.Minute)
	if l.current != "" {
		l.offer(l.current, l.does[l.current]) // a server repeats an offer that it has no last word on
	}
	l.run(3 * time.Minute)
	story := fmt.Sprintf("%q: %q", l.story, l.said())
	running := l.running()
	require.NotEmpty(l.t, running, story)
	require.Empty(l.t, l.note(), story)
	if l.current == "" {
		require.Equal(l.t, fmt.Sprintf("%d+", l.base), running, story)
		return
	}
	last := l.last()
	require.Equal(l.t, l.current, string(last.Hash), story)
	switch last.Outcome {
	case Applied:
		require.Equal(l.t, fmt.Sprintf("%d+%s", l.base, l.current), running, story)
	case Failed:
		require.NotContains(l.t, running, "+"+l.current+".", story)
		require.NotEqual(l.t, fmt.Sprintf("%d+%s", l.base, l.current), running, story)
	default:
		require.Fail(l.t, "no last word", "%s: %v, %s", story, last, running)
	}
	if name := l.onDisk().Good.hash(aboutConfig); name != nil {
		require.Contains(l.t, []string{"", "shutdown", "fatal at the end", "slow"}, l.does[string(name)], story)
	}
}
