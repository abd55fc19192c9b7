package opampextension

import (
	"context"
	"errors"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// wantRestart is called by the session's loop; a restart that waits already is enough.
func (e *opampExtension) wantRestart() {
	select {
	case e.restarts <- struct{}{}:
	default:
	}
}

// partialDelay lets a partial reload finish that has just restarted its first receiver.
const partialDelay = 200 * time.Millisecond

// serve does what must not be done in a callback: restarts, and reading the configuration again after a partial reload.
func (e *opampExtension) serve(ctx context.Context) {
	partial := time.NewTimer(0)
	<-partial.C
	defer partial.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.restarts:
			e.restart(ctx)
		case <-e.receiverStarted:
			partial.Reset(partialDelay)
		case <-partial.C:
			if err := e.reportReread(ctx); err != nil {
				e.set.Logger.Warn("The effective configuration after a partial reload cannot be reported.", zap.Error(err))
			}
		}
	}
}

// restart reloads the Collector in its process, after the configuration has passed the same checks as `validate`: the
// Collector itself would stop first and then find out.
func (e *opampExtension) restart(ctx context.Context) {
	again := hangUp
	check := e.dryRun
	if e.manager != nil {
		check, again = e.manager.Reload, func() error { return nil }
	}
	if err := check(ctx); err != nil {
		e.set.Logger.Error("The restart that the server asked for is refused: the configuration is not valid.", zap.Error(err))
		e.health.setNote("restart refused: " + err.Error())
		return
	}
	e.health.setNote("")
	if err := again(); err != nil {
		e.set.Logger.Error("The restart that the server asked for failed.", zap.Error(err))
	}
}

// dryRun checks the configuration that a reload would read, with the factories of this very binary.
func (e *opampExtension) dryRun(ctx context.Context) error {
	uris := dryrun.URIs(os.Args[1:])
	if len(uris) == 0 {
		return errors.New("the command line names no configuration")
	}
	checker, err := e.checker()
	if err != nil {
		return err
	}
	_, err = checker.Check(ctx, dryrun.Source{URIs: uris})
	return err
}

func (e *opampExtension) checker() (dryrun.Checker, error) {
	factories, err := dryrun.Factories(e.host)
	return dryrun.Checker{Factories: factories, Fresh: remoteconfig.Factories(), BuildInfo: e.set.BuildInfo, Logger: e.set.Logger}, err
}

// reportReread reads the configuration once more and reports it: the Collector tells nobody of a partial reload.
func (e *opampExtension) reportReread(ctx context.Context) error {
	checker, err := e.checker()
	if err != nil {
		return err
	}
	resolve := func(ctx context.Context) (*dryrun.Result, error) {
		return checker.Resolve(ctx, dryrun.Source{URIs: dryrun.URIs(os.Args[1:])})
	}
	if e.manager != nil {
		resolve = e.manager.Running
	}
	result, err := resolve(ctx)
	if err != nil {
		return err
	}
	return e.reportConfig(result.Effective, result.Unexpanded)
}
