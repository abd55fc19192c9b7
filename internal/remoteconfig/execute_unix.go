//go:build unix

package remoteconfig

import (
	"fmt"
	"os"
	"syscall"
)

// ExecuteAgain replaces the process by a new run of the executable at the same place: same PID, same arguments, same
// environment. It returns only when that fails.
func ExecuteAgain() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", self, syscall.Exec(self, os.Args, os.Environ()))
}
