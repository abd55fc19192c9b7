package remoteconfig

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A trial that ends in order starts anew at the next boot; until then the server knows that it is being applied.
func TestOrderlyEndDuringATrial(t *testing.T) {
	for name, drain := range map[string]time.Duration{"soaking": 0, "draining": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				goodA(w)
				w.drain.Store(int64(drain))
				w.offer("B", "")
				w.run(2 * time.Second)
				require.NoError(t, w.stop())
				require.Equal(t, "APPLYING B", w.said()[len(w.said())-1])
				require.False(t, w.onDisk().Running)
				w.drain.Store(0)
				w.boot()
				require.Equal(t, "1+B", w.running())
				w.run(15 * time.Second)
				require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
			})
		})
	}
}

// In a stock build nobody hears of a configuration that cannot be read: it must not be the first that a process reads.
func TestUnreadableTrialAfterAnOrderlyEnd(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(time.Second)
		require.NoError(t, w.stop())
		w.unreadable.Store("B")
		w.boot()
		w.run(time.Minute)
		require.Equal(t, "1+A", w.running())
		require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
	})
}

// A good configuration does not start any more, because of an extension that is started before the agent's.
func TestExtensionIsNotReachedAtBoot(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		require.NoError(t, w.stop())
		w.unreachable.Store("A")
		w.boot()
		w.run(time.Minute)
		require.Equal(t, "1+", w.running())
		require.Equal(t, "FAILED A", w.said()[len(w.said())-1])
		require.Contains(t, w.last().Message, "crash: start: ")
	})
}

// A fatal error of the old configuration that comes late does not hide that the new one does not start.
func TestOldConfigurationFailsWhileTheNewOneDoesNotStart(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "fatal at the end")
		w.run(15 * time.Second)
		w.drain.Store(int64(time.Second))
		w.offer("C", "start")
		w.run(1500 * time.Millisecond)
		w.base("2", "")
		w.run(time.Minute)
		require.Equal(t, "2+B", w.running())
		require.Equal(t, "FAILED C", w.said()[len(w.said())-1])
		if w.runner {
			require.Contains(t, w.last().Message, "start: address already in use")
		}
		require.Empty(t, w.note())
	})
}

// The end cancels a dry run: that says nothing about the configuration.
func TestOrderlyEndDuringADryRun(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "slow")
		w.run(time.Second)
		require.NoError(t, w.stop())
		require.Equal(t, "APPLIED A", w.said()[len(w.said())-1])
		require.Empty(t, w.onDisk().Bad)
	})
}

// A component that calls its own end an error does not keep the process from ending.
func TestFatalErrorDuringTheOrderlyEnd(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "fatal at the end")
		w.run(2 * time.Second)
		require.NoError(t, w.stop())
		require.False(t, w.onDisk().Running)
		require.Empty(t, w.onDisk().Bad)
		require.Equal(t, "B", string(w.onDisk().Trial.Hash))
	})
}

func TestHangUpDuringATrial(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(5 * time.Second)
		w.drain.Store(int64(8 * time.Second))
		w.hangUp()
		w.run(7 * time.Second)
		require.Equal(t, "APPLYING B", w.said()[len(w.said())-1], "the time in which it is taken down is no soak")
		w.run(10 * time.Second)
		require.Equal(t, "APPLYING B", w.said()[len(w.said())-1])
		w.run(3 * time.Second)
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
	})
}

// The error with which an old configuration ends is not that of the new one, nor one of its start.
func TestOldConfigurationDoesNotEndWell(t *testing.T) {
	onMachine(t, func(w *machine) {
		w.boot()
		w.offer("A", "shutdown")
		w.run(15 * time.Second)
		require.Equal(t, "1+A", w.running())
		w.hangUp()
		w.run(5 * time.Second)
		require.Equal(t, "1+A", w.running())
		w.offer("B", "")
		w.run(15 * time.Second)
		if w.runner {
			require.Equal(t, "1+B", w.running())
			require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
			require.Empty(t, w.onDisk().Crashes)
		} else { // the process has ended while it applied B, and nobody can tell why
			require.Equal(t, "1+A", w.running())
			require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
		}
	})
}

func TestHangUpOfATrialThatDoesNotEndWell(t *testing.T) {
	onMachine(t, func(w *machine) {
		if !w.runner {
			return // the process ends, and that is what it is blamed for
		}
		goodA(w)
		w.offer("B", "shutdown")
		w.run(5 * time.Second)
		w.hangUp()
		w.run(15 * time.Second)
		require.Equal(t, "1+B", w.running())
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
	})
}

// Three crashes within five minutes take a good configuration back, to the one before it, and at last to the base file.
func TestCrashLoop(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(15 * time.Second)
		crash := func(want string) {
			t.Helper()
			w.kill()
			w.run(time.Second)
			require.Equal(t, want, w.running())
		}
		crash("1+B")
		crash("1+B")
		w.run(6 * time.Minute)
		crash("1+B")
		crash("1+B")
		crash("1+A")
		require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
		require.Contains(t, w.last().Message, "crash: ")
		crash("1+A")
		crash("1+A")
		crash("1+")
		for range 10 {
			crash("1+")
		}
	})
}

// A good configuration that has fatal errors again and again is taken back too.
func TestFatalErrorsOfAGoodConfiguration(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		for range 3 {
			require.Equal(t, "1+A", w.running())
			w.process.service.fails(errors.New("processor:remote: as configured"))
			w.run(3 * time.Second)
		}
		require.Equal(t, "1+", w.running())
		require.Equal(t, "FAILED A", w.said()[len(w.said())-1])
	})
}

// The base file alone is not tried for ever: the service manager must see that something is wrong.
func TestFatalErrorsOfTheBaseFile(t *testing.T) {
	onMachine(t, func(w *machine) {
		w.base("1", "fatal")
		w.boot()
		first := w.process
		for range 100 {
			w.run(100 * time.Millisecond)
			if w.process != first {
				break
			}
		}
		<-first.ended
		require.Error(t, first.exit, "exit code 0 would be taken for the end that was asked for")
		require.LessOrEqual(t, len(w.starts), 4)
	})
}

// on_failed_start: exit leaves the process to its service manager; one that hangs must be ended for that.
func TestExitOnFailedStart(t *testing.T) {
	for _, do := range []string{"start", "hang", "fatal"} {
		t.Run(do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				w.settings = "    remote_config: {on_failed_start: exit}"
				w.base("1", "")
				goodA(w)
				first := w.process
				w.offer("B", do)
				w.run(time.Minute)
				require.Equal(t, "1+A", w.running())
				require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
				require.NotContains(t, w.last().Message, "crash")
				if w.runner && do != "hang" {
					require.Same(t, first, w.process)
					return
				}
				require.NotSame(t, first, w.process)
				require.False(t, first.execed)
				if do != "hang" {
					require.Error(t, first.exit)
				}
			})
		})
	}
}

func TestProcessThatCannotExecuteItself(t *testing.T) {
	for _, do := range []string{"start", "hang", "fatal"} {
		t.Run(do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				goodA(w)
				w.execFails.Store(true)
				w.offer("B", do)
				w.run(time.Minute)
				require.Equal(t, "1+A", w.running())
				require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
			})
		})
	}
}

// Another file of the command line is gone: the Collector does not even ask for its configuration.
func TestReloadThatDoesNotReachTheManager(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		first := w.process
		w.otherFileGone.Store(true)
		w.offer("B", "")
		w.run(time.Second)
		w.otherFileGone.Store(false)
		w.run(30 * time.Second)
		if w.runner {
			require.Same(t, first, w.process)
			require.Equal(t, "1+B", w.running())
		}
		require.NotEmpty(t, w.running())
	})
}
