package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/traffic"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitRefused = 2  // a no of agents or policy
	exitUsage   = 64 // unknown flag or command, or a bad value (EX_USAGE of sysexits)
)

// streams is where a command writes: results to out, everything else to err.
type streams struct {
	out, err io.Writer
}

// usageError is a mistake on the command line.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// refusedError is a no of agents or policy: the command itself did what it should.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// newRootCommand holds all subcommands. A subcommand is a file of its own with a constructor that is added here; it
// returns errors, and wraps those that the command line caused in a *usageError.
func newRootCommand(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "collie",
		Short:         "Herds OpenTelemetry Collectors",
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArguments,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("collie {{.Version}}\n")
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd.CommandPath(), err} })
	root.AddCommand(
		newAgentsCommand(s),
		newAuditCommand(s),
		newConfigCommand(s),
		newConnectionsCommand(s),
		newDemoCommand(s),
		newLoadCommand(s),
		newPackagesCommand(s),
		newPlanCommand(s),
		newRolloutCommand(s),
		newServerCommand(s),
		newSinkCommand(s),
		newTokenCommand(s),
		newVersionCommand(s),
	)
	return root
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, s streams, args []string) int {
	root := newRootCommand(s)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	var usage *usageError
	var refused *refusedError
	if !errors.As(err, &usage) {
		_, _ = fmt.Fprintf(s.err, "%s: %s\n", cmd.CommandPath(), oneLine(err))
		if errors.As(err, &refused) {
			return exitRefused
		}
		return exitFailed
	}
	_, _ = fmt.Fprintf(s.err, "%s: %s; see %s --help\n", usage.command, oneLine(err), usage.command)
	return exitUsage
}

// noArguments also catches unknown subcommands, which cobra gives to the parent as arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return &usageError{cmd.CommandPath(), fmt.Errorf("there is no command %q", args[0])}
	}
	return &usageError{cmd.CommandPath(), fmt.Errorf("takes no arguments, got %q", args[0])}
}

// oneLine also keeps control characters of messages from the wire off the terminal.
func oneLine(err error) string {
	return oneText(err.Error())
}

// badFlags makes a usage error of the bad values that package traffic found, by the names of the flags.
func badFlags(cmd *cobra.Command, err error) error {
	var bad *traffic.ConfigError
	if !errors.As(err, &bad) {
		return err
	}
	var named []error
	for _, e := range split(err) {
		if errors.As(e, &bad) {
			e = fmt.Errorf("--%w", bad)
		}
		named = append(named, e)
	}
	return &usageError{cmd.CommandPath(), errors.Join(named...)}
}

// split is the inverse of errors.Join.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// checkOutput checks the value of -o.
func checkOutput(cmd *cobra.Command, format string) error {
	if format == formatTable || format == formatJSON {
		return nil
	}
	return &usageError{cmd.CommandPath(), fmt.Errorf("--output must be table or json, got %q", format)}
}

// terminalOf finds the terminal behind a writer. It also takes /dev/null for one, where that does no harm.
func terminalOf(w io.Writer) (*os.File, bool) {
	file, ok := w.(*os.File)
	if !ok {
		return nil, false
	}
	info, err := file.Stat()
	return file, err == nil && info.Mode()&os.ModeCharDevice != 0
}
