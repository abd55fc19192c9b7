package remoteconfig

import "errors"

func executeAgain() error { return errors.New("Windows cannot replace a process") }
