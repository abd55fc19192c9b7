package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/collie-otel/collie/internal/datadir"
)

// TestMain keeps servers and tokens of this machine out of the tests.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{
		serverVariable: "http://127.0.0.1:1", tokenVariable: "", datadir.Variable: filepath.Join(os.TempDir(), "collie-has-no-such-directory"),
	} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// buffer may be read while a command writes to it.
type buffer struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// collie runs one command line to its end.
func collie(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, err buffer
	code = execute(ctx, streams{out: &out, err: &err}, args)
	return code, out.String(), err.String()
}

func TestBadUsage(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"nope":                          `collie: there is no command "nope"; see collie --help`,
		"--nope":                        "collie: unknown flag: --nope; see collie --help",
		"load --nope":                   "collie load: unknown flag: --nope; see collie load --help",
		"load extra":                    `collie load: takes no arguments, got "extra"; see collie load --help`,
		"load --rate x":                 `collie load: invalid argument "x" for "--rate" flag`,
		"load --protocol x":             `collie load: --protocol must be grpc or http, got "x"; see collie load --help`,
		"load --protocol x --traces -1": `collie load: --protocol must be grpc or http, got "x"; --traces must be 0 or more; see`,
		"load --endpoint localhost":     `collie load: --endpoint must be host:port, got "localhost": `,
		"load --header x":               `collie load: --header must be key=value, got "x"`,
		"load -o yaml":                  `collie load: --output must be table or json, got "yaml"`,
		"load --ca-file x --insecure":   "collie load: --ca-file means TLS and --insecure means plaintext: leave one out",
		"sink -o yaml":                  `collie sink: --output must be table or json, got "yaml"`,
		"sink --fail-ratio 2":           "collie sink: --fail-ratio must be from 0 to 1, got 2",
		"sink --listen x":               `collie sink: --listen must be host:port, got "x": `,
		"sink --duration -1s":           "collie sink: --duration must be 0 or more",
		"version extra":                 `collie version: takes no arguments, got "extra"`,
	} {
		t.Run(line, func(t *testing.T) {
			code, stdout, stderr := collie(t.Context(), strings.Fields(line)...)
			require.Equal(t, exitUsage, code)
			require.Empty(t, stdout)
			require.True(t, strings.HasPrefix(stderr, want), "got %q", stderr)
			require.Equal(t, 1, strings.Count(stderr, "\n"), "one line")
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"":                "Available Commands:",
		"--help":          "Available Commands:",
		"load --help":     "--slow-ratio",
		"sink --help":     "--acknowledged",
		"version":         "collie dev (go",
		"--version":       "collie dev (go",
		"completion bash": "bash completion V2 for collie",
	} {
		code, stdout, stderr := collie(t.Context(), strings.Fields(line)...)
		require.Equal(t, exitDone, code, line)
		require.Contains(t, stdout, want, line)
		require.Empty(t, stderr, line)
	}
}
