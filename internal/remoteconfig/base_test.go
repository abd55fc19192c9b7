package remoteconfig

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestChangedBaseFileIsApplied(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.base("2", "")
		w.run(5 * time.Second)
		require.Equal(t, "2+A", w.running())
		require.Empty(t, w.note())
		require.Equal(t, "APPLIED A", w.said()[len(w.said())-1])
	})
}

// A base file that is refused is named in the health until it is what runs, or another one is accepted.
func TestRefusedBaseFile(t *testing.T) {
	refuse := map[string]func(w *machine){
		"by the dry run":     func(w *machine) { w.base("2", "dry run") },
		"not YAML":           func(w *machine) { w.write("[") },
		"without extensions": func(w *machine) { w.write("receivers: {}") },
	}
	correct := map[string]func(w *machine){
		"put back":                  func(w *machine) { w.base("1", ""); w.run(5 * time.Second) },
		"corrected":                 func(w *machine) { w.base("3", ""); w.run(5 * time.Second) },
		"put back, and SIGHUP":      func(w *machine) { w.base("1", ""); w.hangUp(); w.run(time.Second) },
		"corrected, and SIGHUP":     func(w *machine) { w.base("3", ""); w.hangUp(); w.run(time.Second) },
		"corrected, and a restart":  func(w *machine) { w.base("3", ""); w.restart(); w.run(time.Second) },
		"put back, and a restart":   func(w *machine) { w.base("1", ""); w.restart(); w.run(time.Second) },
		"corrected after a SIGHUP":  func(w *machine) { w.hangUp(); w.run(3 * time.Second); w.base("3", ""); w.run(5 * time.Second) },
		"put back after a deletion": func(w *machine) { w.gone(); w.base("1", ""); w.run(5 * time.Second) },
	}
	for how, refuse := range refuse {
		for what, correct := range correct {
			t.Run(how+", "+what, func(t *testing.T) {
				onMachine(t, func(w *machine) {
					goodA(w)
					refuse(w)
					w.run(5 * time.Second)
					require.Equal(t, "1+A", w.running())
					require.Contains(t, w.note(), "is refused")
					correct(w)
					require.Contains(t, []string{"1+A", "3+A"}, w.running())
					require.Empty(t, w.note())
				})
			})
		}
	}
}

// gone deletes the base file for a while, reloads and all.
func (w *machine) gone() {
	w.t.Helper()
	require.NoError(w.t, os.Remove(w.file))
	w.run(3 * time.Second)
	w.hangUp()
	w.run(3 * time.Second)
	require.NotEmpty(w.t, w.running())
	require.NotEmpty(w.t, w.note())
}

func (w *machine) restart() {
	w.t.Helper()
	require.NoError(w.t, w.process.m.Reload(context.Background()))
}

// The file is moved away and back: the same file, as far as the file system can tell.
func TestBaseFileIsMovedAwayAndBack(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		require.NoError(t, os.Rename(w.file, w.file+".away"))
		w.hangUp()
		w.run(3 * time.Second)
		require.Equal(t, "1+A", w.running())
		require.Contains(t, w.note(), "is refused")
		require.NoError(t, os.Rename(w.file+".away", w.file))
		w.run(3 * time.Second)
		require.Empty(t, w.note())
	})
}

// What a dry run does not see: the base file is to blame that has changed, not the remote configuration.
func TestChangedBaseFileDoesNotStart(t *testing.T) {
	for _, do := range []string{"start", "unmarshal"} {
		t.Run(do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				if !w.runner {
					return // the process ends, and finds the bad file again
				}
				goodA(w)
				w.offer("B", "")
				w.run(5 * time.Second)
				w.base("2", do)
				w.run(5 * time.Second)
				require.Equal(t, "1+B", w.running())
				require.Contains(t, w.note(), "is refused: start")
				w.run(15 * time.Second)
				require.Equal(t, []string{"APPLYING A", "APPLIED A", "APPLYING B", "APPLIED B"}, w.said())
			})
		})
	}
}

// A stock build reads the bad file again, at each boot, and ends each time. What was good before is not to blame for that.
func TestChangedBaseFileDoesNotStartAtBoot(t *testing.T) {
	for _, do := range []string{"start", "unmarshal", "extension", "panic"} {
		t.Run(do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				goodA(w)
				if w.runner {
					require.NoError(t, w.stop())
				}
				w.base("2", do)
				if w.runner {
					w.boot()
				}
				w.run(5 * time.Second)
				w.base("3", "")
				w.run(5 * time.Second)
				require.Equal(t, "3+A", w.running())
				require.Equal(t, "APPLIED A", w.said()[len(w.said())-1])
				require.Empty(t, w.onDisk().Bad)
			})
		})
	}
}

// Base file and remote configuration change at once: one after the other is tried, so that the right one is blamed.
func TestBaseFileChangesWhileAConfigurationIsApplied(t *testing.T) {
	for do, want := range map[string]string{"": "2+B", "start": "1+B"} {
		t.Run("the file "+do, func(t *testing.T) {
			onMachine(t, func(w *machine) {
				if !w.runner && do != "" {
					return
				}
				goodA(w)
				w.drain.Store(int64(time.Second))
				w.offer("B", "")
				w.run(500 * time.Millisecond)
				w.base("2", do)
				w.run(40 * time.Second)
				require.Equal(t, want, w.running())
				require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
			})
		})
	}
	t.Run("the remote configuration is bad", func(t *testing.T) {
		onMachine(t, func(w *machine) {
			goodA(w)
			w.drain.Store(int64(time.Second))
			w.offer("B", "start")
			w.run(500 * time.Millisecond)
			w.base("2", "")
			w.run(40 * time.Second)
			require.Equal(t, "2+A", w.running())
			require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
			require.Empty(t, w.note())
		})
	})
}

func TestBadBaseFileAtBoot(t *testing.T) {
	onMachine(t, func(w *machine) {
		w.write("receivers: {}")
		w.process = newProcess(w)
		<-w.process.ended
		if w.runner {
			require.ErrorContains(t, w.process.exit, "scheme opamp")
		}
		require.NoFileExists(t, w.dir+"/opamp/"+stateFile)
		w.base("1", "")
		w.run(time.Second)
		require.Equal(t, "1+", w.running())
	})
}

// Without the capability the base file runs alone, whatever is stored; with it again, what was good before runs again.
func TestRemoteConfigurationIsNotAccepted(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(time.Second)
		w.settings = "    capabilities: {accepts_remote_config: false}"
		w.base("2", "")
		w.run(5 * time.Second)
		require.Equal(t, "2+", w.running())
		w.offer("C", "")
		w.run(15 * time.Second)
		require.Equal(t, "2+", w.running())
		for range 5 {
			w.kill()
			w.run(time.Second)
			require.Equal(t, "2+", w.running())
		}
		require.NoError(t, w.stop())
		w.settings = ""
		w.base("3", "")
		w.boot()
		require.Equal(t, "3+A", w.running())
	})
}

// In the mode replace, too, the base file runs alone as long as there is nothing to replace it.
func TestReplaceModeWithoutARemoteConfiguration(t *testing.T) {
	onMachine(t, func(w *machine) {
		w.settings = "    remote_config: {mode: replace}"
		w.base("1", "")
		w.boot()
		require.Equal(t, "1+", w.running())
		w.offer("A", "")
		w.run(15 * time.Second)
		require.Equal(t, "<nil>+A", w.running())
		w.process.m.Offer(&Generation{Hash: []byte("none")})
		w.run(15 * time.Second)
		require.Equal(t, "1+", w.running())
	})
}

// The local policy is final: also for what was stored before it.
func TestPolicyIsTightenedWhileTheCollectorIsDown(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		require.NoError(t, w.stop())
		w.settings = "    remote_config: {components_denied: {processors: [remote]}}"
		w.base("1", "")
		w.boot()
		require.Equal(t, "1+", w.running())
		require.Equal(t, "FAILED A", w.said()[len(w.said())-1])
		require.Contains(t, w.last().Message, "policy: ")
	})
}
