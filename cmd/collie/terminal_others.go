//go:build !unix

package main

import "os"

// terminalHeight is the number of lines of a terminal, 0 when it is not known.
func terminalHeight(*os.File) int { return 0 }
