//go:build unix && !linux

package process

import "syscall"

// attributes keeps a Ctrl-C at the terminal from the child.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
