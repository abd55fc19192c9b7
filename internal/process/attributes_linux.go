package process

import "syscall"

// attributes has the kernel kill the child when its parent dies, however that comes about.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
