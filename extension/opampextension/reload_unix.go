//go:build unix

package opampextension

import (
	"os"
	"syscall"
)

// canReload: the Collector reloads its configuration in the same process when it gets a SIGHUP.
const canReload = true

func hangUp() error { return syscall.Kill(os.Getpid(), syscall.SIGHUP) }

// endProcess ends the Collector as a service manager would.
func endProcess() error { return syscall.Kill(os.Getpid(), syscall.SIGTERM) }
