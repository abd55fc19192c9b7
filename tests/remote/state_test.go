package remote

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// Lines of the Collector's log: the core's at a reload, and those of the agent.
const (
	logReload  = "Config updated"
	logApply   = "Applying a remote configuration."
	logGood    = "The remote configuration is good."
	logKnown   = "known to be bad"
	logRefused = "The changed base configuration is refused"
)

type hashed struct{ Hash []byte }

// onDisk is the state file, as far as the tests look into it.
type onDisk struct {
	Good, Previous, Trial *hashed
	Bad                   []struct {
		Hash    []byte
		Message string
	}
	Status struct {
		Hash    []byte
		Outcome string
		Message string
	}
	Running bool
}

func (h *hashed) name() string {
	if h == nil {
		return ""
	}
	return string(h.Hash)
}

// refused says whether a configuration is remembered as bad.
func (s *onDisk) refused(hash string) bool {
	for _, b := range s.Bad {
		if string(b.Hash) == hash {
			return true
		}
	}
	return false
}

// stateFile is the path of a file in the agent's state directory.
func (e *env) stateFile(name string) string {
	return filepath.Join(e.collector.StateDir(), "opamp", name)
}

// state is what a next process would find.
func (e *env) state() onDisk {
	e.t.Helper()
	content, err := os.ReadFile(e.stateFile("remote-config.json"))
	require.NoError(e.t, err)
	var file struct{ Payload onDisk }
	require.NoError(e.t, json.Unmarshal(content, &file), "%s", content)
	return file.Payload
}

// written is when the state file was written last.
func (e *env) written() time.Time {
	e.t.Helper()
	info, err := os.Stat(e.stateFile("remote-config.json"))
	require.NoError(e.t, err)
	return info.ModTime()
}

// awaitLog waits until the Collector has said this, after so many bytes of its log.
func (e *env) awaitLog(from int, what string) {
	e.t.Helper()
	harness.Await(e.t, 30*time.Second, "in the log: "+what, func() (bool, any) {
		log := e.collector.Log()[from:]
		return strings.Contains(log, what), log[max(0, len(log)-500):]
	})
}

// logged counts the lines of the log that contain all parts, after so many of its bytes.
func (e *env) logged(from int, parts ...string) (lines int) {
	for line := range strings.Lines(e.collector.Log()[from:]) {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			lines++
		}
	}
	return lines
}

// mark is a moment: what was said and logged until then.
type mark struct{ said, log int }

func (e *env) mark() mark { return mark{len(e.fleet.said()), len(e.collector.Log())} }
