package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/fleet"
)

// takes wants these arguments, none of them empty; one in square brackets may be left out.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, name := range names {
			if optional := strings.HasPrefix(name, "["); i >= len(args) && !optional || i < len(args) && args[i] == "" {
				return &usageError{cmd.CommandPath(), fmt.Errorf("needs %s", strings.Trim(name, "[]"))}
			}
		}
		if len(args) > len(names) {
			return &usageError{cmd.CommandPath(), fmt.Errorf("takes no more than %s, got %q", strings.Join(names, " "), args[len(names)])}
		}
		return nil
	}
}

// needs wants values for these flags.
func needs(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if cmd.Flags().Lookup(name).Value.String() == "" {
			return &usageError{cmd.CommandPath(), fmt.Errorf("needs --%s", name)}
		}
	}
	return nil
}

// parseVersion reads NAME or NAME@V, where the version is 0 for the former.
func parseVersion(text string) (name string, version int, err error) {
	name, number, given := strings.Cut(text, "@")
	if err := fleet.ValidateName(name); err != nil {
		return "", 0, err
	}
	if !given {
		return name, 0, nil
	}
	version, err = strconv.Atoi(strings.TrimPrefix(number, "v"))
	if err != nil || version < 1 {
		return "", 0, fmt.Errorf("%q: want NAME or NAME@V with a version from 1", text)
	}
	return name, version, nil
}

// checkSelector checks a selector before it is sent.
func checkSelector(text string) error {
	if _, err := fleet.ParseSelector(text); err != nil {
		return fmt.Errorf("--selector: %w", err)
	}
	return nil
}

// checkExpiry checks how long a token is to be valid: a duration, or days as in 30d.
func checkExpiry(text string) error {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 {
			return nil
		}
	}
	if d, err := time.ParseDuration(text); err != nil || d <= 0 {
		return fmt.Errorf("--expires must be like 12h or 30d, got %q", text)
	}
	return nil
}

// readInput reads a file, or the standard input for -.
func readInput(cmd *cobra.Command, path string) (string, error) {
	var content []byte
	var err error
	if path == "-" {
		path = "the standard input"
		content, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), fleet.MaxBody+1))
	} else {
		content, err = os.ReadFile(path)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("--file: %w", err)
	case len(content) > fleet.MaxBody:
		return "", fmt.Errorf("--file: %s has more than %d bytes", path, fleet.MaxBody)
	case !utf8.Valid(content):
		return "", fmt.Errorf("--file: %s is not UTF-8: a configuration is text", path)
	}
	return string(content), nil
}
