//go:build unix

package remoteconfig

import (
	"fmt"
	"os"
	"syscall"
)

// executeAgain replaces the process by a new run of the same binary: same PID, same arguments, same environment. It
// returns only when that fails.
func executeAgain() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", self, syscall.Exec(self, os.Args, os.Environ()))
}
