package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/demo"
)

func newDemoCommand(s streams) *cobra.Command {
	var otelcol string
	cfg := demo.Config{Out: s.out}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a small fleet on this machine and watch data flow through it",
		Long: `Run a control plane, a load generator, two agents, a gateway and a sink on loopback, all of them real processes with the
shipped configurations, show live numbers, and at the end check that nothing was lost.`,
		Example: `  collie demo
  collie demo --duration 20s --rate 5000`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Duration < 0 || cfg.Rate <= 0 {
				return &usageError{cmd.CommandPath(), errors.New("--duration must be 0 or more, and --rate more than 0")}
			}
			var err error
			if cfg.Collie, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			if cfg.Otelcol, err = findOtelcol(otelcol, cfg.Collie); err != nil {
				return err
			}
			return demo.Run(cmd.Context(), cfg)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&cfg.Duration, "duration", 0*time.Second, "end after this time; 0 goes on until Ctrl-C")
	flags.IntVar(&cfg.Rate, "rate", 1000, "spans per second")
	flags.StringVar(&otelcol, "otelcol", "", "`path` of otelcol-collie (default: beside this program, else in PATH)")
	return cmd
}

func findOtelcol(given, collie string) (string, error) {
	const name = "otelcol-collie"
	if given != "" {
		return filepath.Abs(given)
	}
	if beside := filepath.Join(filepath.Dir(collie), name); isFile(beside) {
		return beside, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside %s nor in PATH: run `make build`, or name it with --otelcol", name, collie)
	}
	return path, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
