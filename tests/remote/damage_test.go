package remote

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// stateFiles is all that an agent with a remote configuration keeps.
var stateFiles = []string{"identity.json", "remote-config.json"}

// opampsupervisor v0.158: a state file of 0 bytes, as a power cut leaves it, is a nil pointer at each start.
func TestStartsWithTruncatedStateFiles(t *testing.T) {
	t.Parallel()
	for name, truncated := range map[string][]string{"identity": stateFiles[:1], "remote configuration": stateFiles[1:], "all": stateFiles} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testDamagedState(t, truncated, func([]byte) []byte { return nil })
		})
	}
}

// opampsupervisor v0.158: a line in the log, no configuration at all, and the server is not told.
func TestStartsWithACorruptRemoteConfiguration(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"half":        func(b []byte) []byte { return b[:len(b)/2] },
		"zeros":       func(b []byte) []byte { return make([]byte, len(b)) },
		"flipped bit": func(b []byte) []byte { i := bytes.Index(b, []byte("hash")); b[i+8] ^= 1; return b },
		"not JSON":    func([]byte) []byte { return []byte("receivers: [") },
		"other schema": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"schema_version":1`), []byte(`"schema_version":9`), 1)
		},
		"other JSON": func([]byte) []byte { return []byte(`[1, 2]`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testDamagedState(t, stateFiles[1:], damage)
		})
	}
}

func testDamagedState(t testing.TB, damaged []string, damage func([]byte) []byte) {
	e := start(t, options{})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	uid := e.fleet.agent()
	e.collector.Stop()
	e.fleet.awaitGone()
	e.requireStateFiles(0)
	broken := map[string]bool{}
	for _, name := range damaged {
		content, err := os.ReadFile(e.stateFile(name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(e.stateFile(name), damage(content), 0o600))
		broken[name] = true
	}

	at := e.mark()
	e.collector.Start()
	processors := []any{"attributes/test", "batch"}
	if broken["remote-config.json"] {
		processors = processors[1:] // nothing but the base file is known to be good
	}
	e.requireWorks(processors...)
	require.Equal(t, !broken["identity.json"], bytes.Equal(uid, e.fleet.agent()), "identity")
	e.requireStateFiles(len(damaged))
	for name := range broken {
		require.Equal(t, 1, e.logged(at.log, "error\t", "damaged state file set aside as", name+".damaged-"), "%s\n%s", name, e.collector.Log()[at.log:])
	}
	if broken["remote-config.json"] {
		require.NotEqual(t, "good", e.fleet.lastWord(at.said).hash, "the server must see that it has to send the configuration again")
	}

	at = e.mark()
	e.fleet.push("good", addAttribute)
	if broken["remote-config.json"] {
		e.fleet.await(at.said, "good", "APPLIED")
	}
	e.requireWorks("attributes/test", "batch")

	// It is whole again.
	uid = e.fleet.agent()
	e.collector.Stop()
	e.fleet.awaitGone()
	at = e.mark()
	e.collector.Start()
	e.fleet.await(at.said, "good", "APPLIED")
	e.requireWorks("attributes/test", "batch")
	require.Equal(t, uid, e.fleet.agent())
	require.Zero(t, e.logged(at.log, "damaged"))
	e.collector.Stop()
}

// requireStateFiles requires that the state directory holds all state files, so many that were set aside, and nothing else.
func (e *env) requireStateFiles(aside int) {
	e.t.Helper()
	entries, err := os.ReadDir(e.stateFile(""))
	require.NoError(e.t, err)
	names := map[string]bool{}
	for _, entry := range entries {
		if ok, _ := filepath.Match("*.damaged-*", entry.Name()); ok {
			aside--
			continue
		}
		content, err := os.ReadFile(e.stateFile(entry.Name()))
		require.NoError(e.t, err)
		require.True(e.t, json.Valid(content), entry.Name())
		names[entry.Name()] = true
	}
	require.Zero(e.t, aside, fmt.Sprint(entries))
	require.Len(e.t, names, len(stateFiles))
	for _, name := range stateFiles {
		require.True(e.t, names[name], name)
	}
}
