package packages

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// DryRun says what is wrong with an executable that is to run here and should be of the given version.
type DryRun func(ctx context.Context, executable, version string) error

// Validate is the dry run of a Collector: `--version` names the version, and `validate` accepts the configuration of the command
// line args, which are without the program's name, in the environment env, all within the limit.
func Validate(args, env []string, limit time.Duration) DryRun {
	return func(ctx context.Context, executable, version string) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		printed, err := output(ctx, executable, []string{"--version"}, env)
		if err != nil {
			return fmt.Errorf("--version: %w", err)
		}
		if words := strings.Fields(printed); !slices.Contains(words, version) && !slices.Contains(words, "v"+version) {
			return fmt.Errorf("--version does not name %s: %s", version, clip(printed))
		}
		if _, err := output(ctx, executable, append([]string{"validate"}, configFlags(args)...), env); err != nil {
			return fmt.Errorf("validate: %w", err)
		}
		return nil
	}
}

// configFlags are the flags of a command line that say which configuration runs.
func configFlags(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		name, value, ok := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !strings.HasPrefix(args[i], "-") || name != "config" && name != "set" && name != "feature-gates" {
			continue
		}
		if !ok && i+1 < len(args) {
			i++
			value = args[i]
		}
		out = append(out, "--"+name+"="+value)
	}
	return out
}

// output runs the executable to its end and returns what it has printed; so does the error, when there is one.
func output(ctx context.Context, executable string, args, env []string) (string, error) {
	var printed tail
	err := command(ctx, executable, args, env, &printed)
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return "", fmt.Errorf("still running when its time was over: %s", clip(string(printed)))
	case err != nil:
		return "", fmt.Errorf("%w: %s", err, clip(string(printed)))
	default:
		return string(printed), nil
	}
}

// maxOutput is less than maxMessage, so that the end of the output is not clipped again.
const maxOutput = 1024

// tail keeps the end of what is written to it: that is where a Collector says why it has failed.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p[max(0, len(p)-maxOutput):]...)
	*t = slices.Delete(*t, 0, max(0, len(*t)-maxOutput))
	return len(p), nil
}
