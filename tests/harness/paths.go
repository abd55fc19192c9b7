package harness

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Root is the project's folder.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the caller's path is unknown: build the tests without -trimpath")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Config is the path of a shipped configuration, named relative to configs/.
func Config(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(Root(t), "configs", name)
}

// Binary is the path of a built program, "otelcol-collie" or "collie".
func Binary(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Root(t), "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not built: run `make build` first (%v)", name, err)
	}
	return path
}
