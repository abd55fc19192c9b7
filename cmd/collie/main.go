// Command collie is everything around the Collectors of a fleet in one program. This package is flags, signals and one call
// per subcommand; the work is done by the packages under internal.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is stamped by the linker: -ldflags "-X main.version=...".
var version = "dev"

func main() {
	os.Exit(run())
}

// run exists so that deferred calls come before the exit.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return execute(ctx, streams{out: os.Stdout, err: os.Stderr}, os.Args[1:])
}
