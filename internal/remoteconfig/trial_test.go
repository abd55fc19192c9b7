package remoteconfig

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// goodA boots a Collector on which A is good.
func goodA(w *machine) {
	w.t.Helper()
	w.boot()
	w.offer("A", "")
	w.run(15 * time.Second)
	require.Equal(w.t, []string{"APPLYING A", "APPLIED A"}, w.said())
	require.Equal(w.t, "1+A", w.running())
}

// Each configuration that must not stay: what the server hears last of it, and that A runs again.
func TestBadConfigurationIsLeft(t *testing.T) {
	tests := map[string]struct {
		message string
		starts  bool
	}{
		"dry run":   {message: "dry run: unknown component"},
		"unmarshal": {message: "start: ", starts: true},
		"start":     {message: "address already in use", starts: true},
		"extension": {message: "start: ", starts: true},
		"hang":      {message: "start: not ready within 30s: processor:remote hangs", starts: true},
		"sick":      {message: "health: processor:remote: as configured", starts: true},
		"flaky":     {message: "health: processor:remote, for 20s: as configured", starts: true},
		"fatal":     {message: "health: processor:remote: as configured", starts: true},
		"panic":     {message: "crash: the process ended", starts: true},
	}
	for do, tt := range tests {
		t.Run(do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				goodA(w)
				w.offer("bad", do)
				w.run(90 * time.Second)
				require.Equal(t, "1+A", w.running())
				last := w.last()
				require.Equal(t, Failed, last.Outcome)
				require.Equal(t, "bad", string(last.Hash))
				if do != "unmarshal" || w.runner { // in a stock build nobody is told
					require.Contains(t, last.Message, tt.message)
				}
				require.Equal(t, "A", string(w.onDisk().Good.Hash))
				require.Nil(t, w.onDisk().Trial)

				// Offered again, it is refused at once.
				starts := len(w.starts)
				w.offer("A", "")
				w.run(time.Second)
				require.Equal(t, Applied, w.last().Outcome)
				w.offer("bad", do)
				w.run(time.Second)
				require.Equal(t, last, w.last())
				require.Len(t, w.starts, starts)
				require.NoError(t, w.stop())
			})
		})
	}
}

func TestOfferDuringTheSoakOfAnother(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(5 * time.Second)
		w.offer("C", "")
		w.run(9 * time.Second)
		require.Equal(t, "1+C", w.running())
		require.Equal(t, []string{"APPLYING A", "APPLIED A", "APPLYING B", "APPLYING C"}, w.said(), "the soak of C starts anew")
		w.run(2 * time.Second)
		require.Equal(t, "APPLIED C", w.said()[4])
		require.Equal(t, "A", string(w.onDisk().Previous.Hash), "B was never good")
	})
}

func TestSupersedingConfigurationIsRefused(t *testing.T) {
	for _, do := range []string{"", "sick"} {
		t.Run("the trial is "+do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				goodA(w)
				w.drain.Store(int64(time.Second))
				w.offer("B", do)
				w.run(1030 * time.Millisecond) // B has just started
				w.offer("C", "dry run")
				w.run(30 * time.Second)
				if do == "" {
					require.Equal(t, "1+B", w.running())
				} else {
					require.Equal(t, "1+A", w.running())
				}
				require.Equal(t, "C", string(w.last().Hash), "C is what the server has offered last")
				require.Equal(t, Failed, w.last().Outcome)
			})
		})
	}
}

func TestOfferOfTheGoodConfigurationEndsATrial(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(5 * time.Second)
		require.Equal(t, "1+B", w.running())
		w.offer("A", "")
		w.run(5 * time.Second)
		require.Equal(t, "1+A", w.running())
		require.Nil(t, w.onDisk().Trial, "A is good, and not on trial")
		w.run(10 * time.Second)
		require.Equal(t, []string{"APPLYING A", "APPLIED A", "APPLYING B", "APPLYING A", "APPLIED A"}, w.said())
		w.kill()
		w.run(time.Second)
		require.Equal(t, "1+A", w.running())
		require.Equal(t, Applied, w.last().Outcome)
	})
}

func TestTrialIsOfferedAgainAfterARefusedOne(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(3 * time.Second)
		w.offer("C", "dry run")
		w.run(time.Second)
		w.offer("B", "")
		w.run(20 * time.Second)
		require.Equal(t, "1+B", w.running())
		require.Equal(t, []string{"FAILED C", "APPLYING B", "APPLIED B"}, w.said()[3:])
	})
}

// A was good once, and bad the next time: the way back does not lead over it.
func TestKnownBadConfigurationIsNotReturnedTo(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(15 * time.Second)
		w.offer("A", "sick")
		w.run(5 * time.Second)
		require.Equal(t, "FAILED A", w.said()[len(w.said())-1])
		require.Equal(t, "1+B", w.running())
		for range 3 {
			w.kill()
			w.run(time.Second)
		}
		require.Equal(t, "1+", w.running())
	})
}

func TestOfferDuringAReload(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.drain.Store(int64(5 * time.Second))
		w.offer("B", "")
		w.run(time.Second)
		w.offer("C", "")
		w.run(time.Second)
		w.offer("D", "")
		w.run(40 * time.Second)
		require.Equal(t, "1+D", w.running())
		require.Equal(t, []string{"APPLYING B", "APPLYING D", "APPLIED D"}, w.said()[2:])
	})
}

func TestOfferDuringTheDryRunOfAnother(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "slow")
		w.run(time.Second)
		w.offer("C", "slow")
		w.hangUp() // B has to be looked at once more
		w.run(40 * time.Second)
		require.Equal(t, "1+C", w.running())
		require.Equal(t, "APPLIED C", w.said()[len(w.said())-1])
	})
}

// The Collector forgets what it has heard of the health of the last configuration.
func TestErrorOfTheLastTrialIsNotBlamedOnTheNext(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "flaky")
		w.run(5 * time.Second)
		w.drain.Store(int64(time.Second))
		w.offer("C", "")
		w.run(500 * time.Millisecond)
		w.process.m.Health(map[string]Problem{"processor:remote": {Err: "of B", Lasting: true}})
		w.run(30 * time.Second)
		require.Equal(t, "1+C", w.running())
		require.Equal(t, "APPLIED C", w.said()[len(w.said())-1])
	})
}

func TestErrorsBeforeTheTrialCountForNothing(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.process.m.Health(map[string]Problem{"exporter:x": {Err: "connection refused"}})
		w.offer("B", "")
		w.run(200 * time.Millisecond)
		w.process.m.Health(map[string]Problem{"exporter:x": {Err: "connection refused"}})
		w.run(time.Minute)
		require.Equal(t, "1+B", w.running())
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
	})
}

func TestRecoverableErrorThatGoesAwayStartsTheSoakAnew(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "flaky")
		w.run(15 * time.Second)
		w.process.m.Health(nil)
		w.run(9 * time.Second)
		require.Equal(t, "APPLYING B", w.said()[len(w.said())-1])
		w.run(2 * time.Second)
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
	})
}

// What comes to the same configuration under another name needs no reload.
func TestSameConfigurationUnderAnotherName(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		same := *w.onDisk().Good
		same.Hash = []byte("A2")
		starts := len(w.starts)
		w.process.m.Offer(&same)
		w.run(time.Second)
		require.Equal(t, "APPLIED A2", w.said()[len(w.said())-1])
		require.Len(t, w.starts, starts)
	})
}
