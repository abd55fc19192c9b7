package process

import "syscall"

// attributes has the kernel kill the child when its parent dies, however that comes about, and keeps a Ctrl-C at the
// terminal from the child: when it ends is the parent's decision.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
