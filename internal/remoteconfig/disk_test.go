package remoteconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"

	"github.com/collie-otel/collie/internal/statefile"
)

// retrieveOnce is what `validate` and `print-config` do.
func retrieveOnce(t *testing.T, file string) (*confmap.Conf, error) {
	t.Helper()
	m := newManager(file)
	defer m.timer.Stop()
	retrieved, err := m.Retrieve(t.Context(), func(*confmap.ChangeEvent) { t.Error("nobody watches") })
	if err != nil {
		return nil, err
	}
	require.NoError(t, retrieved.Close(t.Context()))
	return retrieved.AsConf()
}

// listing are the files of a folder with what tells that one has been written.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		files = append(files, fmt.Sprint(path, info.Size(), info.ModTime(), info.Mode()))
		return nil
	}))
	return files
}

func TestRetrieveWithoutAStartLeavesNoTrace(t *testing.T) {
	states := map[string]func(w *machine){
		"nothing stored": func(*machine) {},
		"a good one":     goodA,
		"a crashed trial": func(w *machine) {
			goodA(w)
			w.offer("B", "")
			w.run(time.Second)
			w.kill()
		},
		"a damaged state": func(w *machine) {
			goodA(w)
			require.NoError(w.t, w.stop())
			require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, "opamp", stateFile), []byte("{"), 0o600))
		},
	}
	for name, prepare := range states {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newMachine(t, false)
				prepare(w)
				before := listing(t, w.dir)
				conf, err := retrieveOnce(t, w.file)
				require.NoError(t, err)
				require.Equal(t, "1", conf.Get("receivers::base::name"))
				time.Sleep(time.Hour)
				require.Equal(t, before, listing(t, w.dir))
			})
		})
	}
}

func TestDamagedStateIsSetAside(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		require.NoError(t, w.stop())
		path := filepath.Join(w.dir, "opamp", stateFile)
		require.NoError(t, os.Truncate(path, 100))
		w.boot()
		require.Equal(t, "1+", w.running())
		aside, err := filepath.Glob(path + ".damaged-*")
		require.NoError(t, err)
		require.Len(t, aside, 1)
		w.offer("A", "")
		w.run(15 * time.Second)
		require.Equal(t, "APPLIED A", w.said()[len(w.said())-1])
	})
}

// Nothing is touched when the marker cannot be written; that is not the configuration's fault, and it may be offered again.
func TestStateCannotBeWritten(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.readOnly.Store(true)
		starts := len(w.starts)
		w.offer("B", "")
		w.run(15 * time.Second)
		require.Equal(t, "FAILED B", w.said()[len(w.said())-1])
		require.Contains(t, w.last().Message, "state: ")
		require.Contains(t, w.last().Message, "read-only")
		require.Len(t, w.starts, starts)
		w.readOnly.Store(false)
		delete(w.failed, "B")
		w.offer("B", "")
		w.run(15 * time.Second)
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
	})
}

func TestStateIsWrittenWhenItCanBeAgain(t *testing.T) {
	onMachine(t, func(w *machine) {
		goodA(w)
		w.offer("B", "")
		w.run(5 * time.Second)
		w.readOnly.Store(true)
		w.run(10 * time.Second)
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1], "it is true, whatever the disk does")
		w.readOnly.Store(false)
		w.run(2 * time.Second)
		w.kill()
		w.run(time.Second)
		require.Equal(t, "1+B", w.running())
		require.Equal(t, "APPLIED B", w.said()[len(w.said())-1])
	})
}

func TestStateDirectoryIsReadOnlyFromTheStart(t *testing.T) {
	onMachine(t, func(w *machine) {
		w.readOnly.Store(true)
		w.boot()
		require.Equal(t, "1+", w.running())
		require.NoError(t, w.stop())
	})
}

// kill -9 before and after each write of an offer, a trial and its end: what runs then was good, and the last word is true.
func TestKilledAtEachWrite(t *testing.T) {
	for _, do := range []string{"", "start", "sick", "fatal", "hang", "panic"} {
		for _, after := range []bool{false, true} {
			for n := int32(1); n <= 4; n++ {
				t.Run(fmt.Sprintf("%s/write %d/after %v", do, n, after), func(t *testing.T) {
					onMachine(t, func(w *machine) {
						goodA(w)
						w.killAfter.Store(after)
						if w.killIn.Store(n); after {
							w.killIn.Store(n + 1)
						}
						w.offer("B", do)
						w.run(2 * time.Minute)
						switch last := w.last(); string(last.Hash) {
						case "A": // B was never heard of: the server offers it again
							require.Equal(t, Applied, last.Outcome)
							require.Equal(t, "1+A", w.running())
						case "B":
							require.Contains(t, []Outcome{Applied, Failed}, last.Outcome)
							require.Equal(t, map[Outcome]string{Applied: "1+B", Failed: "1+A"}[last.Outcome], w.running())
						}
					})
				})
			}
		}
	}
}

// Whatever bytes the state file has, there is a configuration to run, and a file that cannot be believed is set aside.
func FuzzStoredState(f *testing.F) {
	f.Add([]byte(`{"good":{"hash":"QQ==","files":[{"Name":"","Body":"e30="}]},"status":{"hash":"QQ==","outcome":"APPLIED"},"running":true}`), true)
	f.Add([]byte(`{"trial":{"hash":"QQ=="},"trial_of":"config","running":true}`), true)
	f.Add([]byte(`{"trial":{"hash":"QQ==","offers":{"hash":"QQ==","settings":"/w=="}},"trial_of":"connections","running":false}`), true)
	f.Add([]byte(`{"trial":{"hash":"QQ=="},"trial_of":"connections","running":false}`), true)
	f.Add([]byte(`{"good":{},"previous":{},"trial":{},"bad":[{}],"crashes":["2001-01-01T00:00:00Z"],"running":true}`), true)
	f.Add([]byte(`{"good":{"files":[{"Body":"Ww=="}]},"previous":{"files":[{"Body":"Ww=="}]}}`), true)
	f.Add([]byte(`{"schema_version":1,"sha256":"00","payload":{}}`), false)
	f.Add([]byte(`[`), false)
	f.Fuzz(func(t *testing.T, content []byte, sealed bool) {
		dir := t.TempDir()
		path := filepath.Join(dir, "opamp", stateFile)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		if !sealed || statefile.Write(path, rawJSON(content)) != nil {
			require.NoError(t, os.WriteFile(path, content, 0o600))
		}
		believed := statefile.Peek(path, &stored{}) == nil
		synctest.Test(t, func(t *testing.T) {
			w := &machine{t: t, dir: dir, file: filepath.Join(dir, "base.yaml"), good: map[string]bool{}, failed: map[string]bool{}, died: map[string]bool{}}
			w.base("1", "")
			_, err := retrieveOnce(t, w.file)
			require.NoError(t, err)
			w.boot()
			require.NoError(t, w.stop())
			require.NoError(t, statefile.Peek(path, &stored{}), "what it leaves can be read")
			aside, err := filepath.Glob(path + ".damaged-*")
			require.NoError(t, err)
			require.Len(t, aside, map[bool]int{true: 0, false: 1}[believed])
		})
	})
}

// rawJSON is a payload of any content.
type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }
