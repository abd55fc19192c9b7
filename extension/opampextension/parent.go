package opampextension

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"go.opentelemetry.io/collector/component/componentstatus"
)

// checkParent returns errOrphaned when the process that must be there is not; 0 is none.
func checkParent(ppid int32) error {
	if ppid == 0 || processExists(int(ppid)) {
		return nil
	}
	return fmt.Errorf("ppid %d: %w", ppid, errOrphaned)
}

// processExists takes a process that belongs to somebody else for one that exists.
func processExists(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, os.ErrPermission)
}

// watchParent ends the Collector when the parent is gone.
func (e *opampExtension) watchParent(ctx context.Context) {
	ticker := time.NewTicker(e.cfg.PPIDPollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := checkParent(e.cfg.PPID); err != nil {
			e.orphaned.Store(true)
			componentstatus.ReportStatus(e.host, componentstatus.NewFatalErrorEvent(err))
			return
		}
	}
}
