// Package datadir knows where a control plane keeps its state unless told, so that commands on the same machine find it. It
// touches no file.
package datadir

import (
	"os"
	"path/filepath"
)

const (
	// Variable is the environment variable that names the data directory.
	Variable = "COLLIE_DATA_DIR"
	// AdminToken is the name of the file in it that holds the first token.
	AdminToken = "admin-token"

	// system is the data directory of a server that runs as root.
	system = "/var/lib/collie"
)

// Default is the data directory: $COLLIE_DATA_DIR, else for root /var/lib/collie, else collie in $XDG_STATE_HOME or in
// ~/.local/state.
func Default() string {
	return choose(os.Getenv, os.Geteuid() == 0)
}

// choose takes a relative XDG_STATE_HOME for none, as the XDG specification says.
func choose(getenv func(string) string, root bool) string {
	if dir := getenv(Variable); dir != "" {
		return dir
	}
	if root {
		return system
	}
	if state := getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "collie")
	}
	for _, home := range []string{getenv("HOME"), getenv("USERPROFILE")} {
		if home != "" {
			return filepath.Join(home, ".local", "state", "collie")
		}
	}
	return system
}
