//go:build unix

// Program statedir gives an existing directory to the Collector's user: statedir DIR [UID:GID], default 10001:10001.
//
// It is for the init container of a DaemonSet whose state is a hostPath: the kubelet creates that directory for root and
// fsGroup does not apply to it. It needs CAP_CHOWN and nothing else. What is in the directory it leaves alone: the
// Collector has created it.
package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		_, _ = io.WriteString(os.Stderr, "statedir: "+err.Error()+"\n")
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: statedir DIR [UID:GID]")
	}
	owner := "10001:10001"
	if len(args) == 2 {
		owner = args[1]
	}
	u, g, _ := strings.Cut(owner, ":")
	uid, errUID := strconv.ParseUint(u, 10, 31)
	gid, errGID := strconv.ParseUint(g, 10, 31)
	if err := errors.Join(errUID, errGID); err != nil {
		return errors.New("owner must be UID:GID in numbers, got " + owner)
	}
	return give(args[0], int(uid), int(gid))
}

// give changes the owner of a directory, once, and closes it to others. It refuses anything but a directory: a symbolic
// link would give away what it points to.
func give(dir string, uid, gid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New(dir + " is not a directory")
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == uid && int(stat.Gid) == gid {
		return nil
	}
	// The mode first: afterwards the directory is another user's, and changing it would need CAP_FOWNER.
	if err := os.Chmod(dir, 0o750); err != nil {
		return err
	}
	return os.Lchown(dir, uid, gid)
}
