package statefile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

type content struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

var written = content{Name: "a <name> & more", Count: 7}

// writtenState is a valid file, as bytes.
func writtenState(t testing.TB) []byte {
	path := filepath.Join(t.TempDir(), "state.json")
	require.NoError(t, Write(path, written))
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	path := filepath.Join(dir, "state.json")
	var read content
	require.ErrorIs(t, Read(path, &read), fs.ErrNotExist)
	for _, want := range []content{written, {}, {Name: "shorter"}} {
		require.NoError(t, Write(path, want))
		read = content{}
		require.NoError(t, Read(path, &read))
		require.Equal(t, want, read)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left beside the file")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestDamagedIsSetAside(t *testing.T) {
	t.Parallel()
	valid := writtenState(t)
	edited := func(edit func(*envelope)) []byte {
		var e envelope
		require.NoError(t, json.Unmarshal(valid, &e))
		edit(&e)
		data, err := json.Marshal(e)
		require.NoError(t, err)
		return data
	}
	for name, data := range map[string][]byte{
		"not JSON":       []byte("instance_uid: 1"),
		"null":           []byte("null"),
		"other JSON":     []byte(`{"name":"a","count":7}`),
		"older schema":   edited(func(e *envelope) { e.SchemaVersion-- }),
		"newer schema":   edited(func(e *envelope) { e.SchemaVersion++ }),
		"edited payload": edited(func(e *envelope) { e.Payload = []byte(`{"name":"b","count":7}`) }),
		"no checksum":    edited(func(e *envelope) { e.SHA256 = "" }),
		"two files":      append(append([]byte{}, valid...), valid...),
		"payload of another type": edited(func(e *envelope) {
			e.Payload = []byte(`[1]`)
			sum := sha256.Sum256(e.Payload)
			e.SHA256 = hex.EncodeToString(sum[:])
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireSetAside(t, data)
		})
	}
	t.Run("truncated at every length", func(t *testing.T) {
		t.Parallel()
		for n := range valid {
			requireSetAside(t, valid[:n])
		}
	})
	t.Run("every byte flipped", func(t *testing.T) {
		t.Parallel()
		for i := range valid {
			for _, bits := range []byte{0xff, 0x01, 0x20, 0x80} {
				data := append([]byte{}, valid...)
				data[i] ^= bits
				var read content
				if err := decode(data, &read); err == nil {
					require.Equal(t, written, read, "byte %d: only the case of the envelope's own keys may differ", i)
				}
			}
			data := append([]byte{}, valid...)
			data[i] ^= 0xff
			requireSetAside(t, data)
		}
	})
}

// requireSetAside checks that a damaged file is kept under another name, is not believed, and does not stop the next write.
func requireSetAside(t *testing.T, data []byte) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	var read content
	err := Read(path, &read)
	require.ErrorIs(t, err, ErrSetAside)
	require.NoFileExists(t, path)
	aside, globErr := filepath.Glob(path + ".damaged-*")
	require.NoError(t, globErr)
	require.Len(t, aside, 1)
	require.ErrorContains(t, err, aside[0])
	kept, readErr := os.ReadFile(aside[0])
	require.NoError(t, readErr)
	require.Equal(t, string(data), string(kept))

	require.NoError(t, Write(path, written))
	read = content{}
	require.NoError(t, Read(path, &read))
	require.Equal(t, written, read)
}

// TestCannotBeWritten uses paths that stop root as well, whom no permission stops.
func TestCannotBeWritten(t *testing.T) {
	t.Parallel()
	t.Run("below a regular file", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, []byte("kept"), 0o600))
		path := filepath.Join(file, "state.json")
		require.Error(t, Write(path, written))
		err := Read(path, &content{})
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrSetAside)
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, "kept", string(data))
	})
	t.Run("a folder in its place", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		path := filepath.Join(dir, "state.json")
		require.NoError(t, os.MkdirAll(filepath.Join(path, "not empty"), 0o700))
		require.Error(t, Write(path, written))
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, entries, 1, "no half of a file stays behind")
	})
	t.Run("not encodable", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "state.json")
		require.Error(t, Write(path, func() {}))
		require.NoFileExists(t, path)
	})
}

func FuzzDecodeChecksum(f *testing.F) {
	valid := writtenState(f)
	var read content
	require.NoError(f, decode(valid, &read), "a seed must reach the decoded state")
	f.Add(valid)
	f.Add(valid[:len(valid)/2])
	f.Add([]byte("null"))
	f.Add([]byte(`{"schema_version":1,"sha256":"","payload":null}`))
	f.Add([]byte(`{"schema_version":1,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var read any
		if err := decode(data, &read); err != nil {
			return
		}
		var e envelope
		require.NoError(t, json.Unmarshal(data, &e))
		sum := sha256.Sum256(e.Payload)
		require.Equal(t, hex.EncodeToString(sum[:]), e.SHA256)
		require.Equal(t, schemaVersion, e.SchemaVersion)
		require.True(t, json.Valid(e.Payload))
	})
}
