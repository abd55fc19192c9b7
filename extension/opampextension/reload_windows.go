package opampextension

import "errors"

// canReload: there is no SIGHUP on Windows, and so no restart in the process.
const canReload = false

func hangUp() error { return errors.New("not supported on Windows") }

func endProcess() error { return errors.New("not supported on Windows") }
