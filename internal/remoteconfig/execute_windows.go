package remoteconfig

import "errors"

// ExecuteAgain is not possible here.
func ExecuteAgain() error { return errors.New("Windows cannot replace a process") }
