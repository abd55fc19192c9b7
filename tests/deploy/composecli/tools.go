//go:build tools

// Package composecli pins the Docker Compose that tests/deploy runs the compose files with. It is a module of its own:
// its requirements are none of the project's.
package composecli

import _ "github.com/docker/compose/v5/cmd"
