//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The test gives directories to the user that runs it, which needs no privilege; tests/deploy changes owners for real.
func TestRun(t *testing.T) {
	t.Parallel()
	me := strconv.Itoa(os.Getuid()) + ":" + strconv.Itoa(os.Getgid())
	for name, tc := range map[string]struct {
		args func(dir string) []string
		want string
	}{
		"own directory":   {func(dir string) []string { return []string{dir, me} }, ""},
		"no argument":     {func(string) []string { return nil }, "usage: statedir DIR [UID:GID]"},
		"too many":        {func(dir string) []string { return []string{dir, me, me} }, "usage"},
		"a name as owner": {func(dir string) []string { return []string{dir, "otel:otel"} }, "owner must be UID:GID in numbers, got otel:otel"},
		"no group":        {func(dir string) []string { return []string{dir, "10001"} }, "owner must be"},
		"missing":         {func(dir string) []string { return []string{filepath.Join(dir, "nothing"), me} }, "no such file"},
		"symbolic link": {func(dir string) []string {
			link := filepath.Join(dir, "link")
			require.NoError(t, os.Symlink(dir, link))
			return []string{link, me}
		}, "is not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := run(tc.args(t.TempDir()))
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestGiveClosesTheDirectoryToOthers(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Log("not root: the owner stays, so there is nothing to change")
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, give(dir, 10001, 10001))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o750), info.Mode().Perm())
	require.Equal(t, uint32(10001), info.Sys().(*syscall.Stat_t).Uid)
	require.NoError(t, give(dir, 10001, 10001), "a second time")
}
