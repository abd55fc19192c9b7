package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var documented = regexp.MustCompile(`(?m)^collie .*$`)

// words parts a command line as a shell does, as far as the page needs it, and leaves out what is for the shell.
func words(line string) []string {
	line, _, _ = strings.Cut(line, " <")
	line, _, _ = strings.Cut(line, " >")
	var found []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			found = append(found, part)
			continue
		}
		found = append(found, strings.Fields(part)...)
	}
	return found[1:]
}

func TestDocumentedCommandsExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	lines := documented.FindAllString(string(page), -1)
	require.NotEmpty(t, lines)
	seen := map[string]bool{}
	for _, line := range lines {
		root := newRootCommand(streams{out: &buffer{}, err: &buffer{}})
		root.InitDefaultCompletionCmd()
		cmd, rest, err := root.Find(words(line))
		require.NoError(t, err, line)
		require.True(t, cmd.Runnable() && !cmd.HasSubCommands(), line)
		require.NoError(t, cmd.ParseFlags(rest), line)
		require.NoError(t, cmd.ValidateArgs(cmd.Flags().Args()), line)
		seen[cmd.CommandPath()] = true
	}
	for _, parent := range newRootCommand(streams{out: &buffer{}, err: &buffer{}}).Commands() {
		if parent.PersistentFlags().Lookup("token") == nil {
			continue // talks to no server
		}
		for _, cmd := range parent.Commands() {
			require.True(t, seen[cmd.CommandPath()], "docs/cli.md does not show %s", cmd.CommandPath())
		}
	}
}
