//go:build unix

package packages

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/statefile"
)

func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	var r record
	for i := range 3 * maxFailures {
		r.Offered = &identity{Hash: []byte{byte(i)}}
		r.condemn(strings.Repeat("x", 2*maxMessage))
		r.condemn("twice")
	}
	require.Len(t, r.Failures, maxFailures)
	require.NotNil(t, r.failureOf([]byte{3*maxFailures - 1}))
	require.Nil(t, r.failureOf([]byte{0}))
	require.LessOrEqual(t, len(r.Failures[0].Error), maxMessage+4)
}

func FuzzClip(f *testing.F) {
	f.Add(strings.Repeat("ä", maxMessage))
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := clip(text)
		require.True(t, utf8.ValidString(got))
		require.LessOrEqual(t, len(got), maxMessage+4)
	})
}

// FuzzRecord: whatever a state file says, the process starts, an executable is there, and the statuses can be sent.
func FuzzRecord(f *testing.F) {
	hash := sum(oldProgram)
	for _, r := range []record{
		{},
		{Stage: swapping, Offered: &identity{Name: Name, Version: "1", Hash: []byte("h"), Content: hash}, Old: hash},
		{Stage: swapping, Offered: &identity{Content: hash}, Starts: 1},
		{Stage: reverting, Offered: &identity{Content: sum(newProgram)}, Old: hash, Reason: "x"},
		{Stage: reverting, Offered: &identity{Content: hash}, Reason: "x"},
		{Stage: checking},
		{Stage: "other", Status: 99},
		{Stage: downloading, Offered: &identity{}},
	} {
		path := filepath.Join(f.TempDir(), "state")
		require.NoError(f, writeRecord(path, &r))
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		_, payload, ok := bytes.Cut(data, []byte(`"payload":`))
		require.True(f, ok)
		f.Add(bytes.TrimSuffix(payload, []byte("}")))
	}
	fx := newFixture(f)
	fx.files.Close()
	f.Fuzz(func(t *testing.T, payload []byte) {
		var raw rawJSON = payload
		opts := fx.opts
		opts.Directory, opts.Executable = t.TempDir(), filepath.Join(t.TempDir(), "exe")
		require.NoError(t, os.WriteFile(opts.Executable, oldProgram, 0o755))
		if statefile.Write(filepath.Join(opts.Directory, "packages.json"), raw) != nil {
			return
		}
		m, err := Open(opts)
		require.NoError(t, err)
		defer m.Close()
		_, err = proto.Marshal(m.Statuses())
		require.NoError(t, err)
		require.NotEmpty(t, m.Statuses().Packages)
		content, err := os.ReadFile(opts.Executable)
		require.NoError(t, err)
		require.Equal(t, string(oldProgram), string(content))
	})
}

type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }
