package remoteconfig

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/confmap"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/reload"
)

// service is one service.Service.
type service struct {
	*collector
	conf     *confmap.Conf
	attached bool
	alive    atomic.Bool
}

// does says whether a configuration, base file or remote, was told to behave like that.
func (s *service) does(what string) bool {
	return s.conf.Get("receivers::base::do") == what || s.conf.Get("processors::remote::do") == what
}

func (s *service) remote() string {
	name, _ := s.conf.Get("processors::remote::name").(string)
	return name
}

func (s *service) name() string {
	return fmt.Sprint(s.conf.Get("receivers::base::name"), "+", s.remote())
}

func (s *service) start() error {
	if s.does("extension") || s.remote() != "" && s.remote() == s.w.unreachable.Load() {
		return errors.New("an extension before opamp does not start")
	}
	s.m.Attach(Host{
		Checker: fakeChecker{}, Logger: zap.NewNop(), Grace: 20 * time.Second, Reread: func() {}, ReportConnections: func(word Status) { s.w.heardOfConnections(s.process, word) },
		Report:   func(word Status) { s.w.heard(s.process, word) },
		Starting: func() []string { return []string{"processor:remote"} },
		Note:     func(note string) { s.process.mu.Lock(); defer s.process.mu.Unlock(); s.process.note = note },
	})
	s.attached = true
	s.alive.Store(true)
	if s.does("start") {
		return errors.New("address already in use")
	}
	if s.does("hang") {
		<-s.dead
		return errDead
	}
	s.m.Ready()
	s.process.mu.Lock()
	s.process.running, s.process.ready = s.name(), true
	s.process.mu.Unlock()
	time.AfterFunc(50*time.Millisecond, s.misbehave)
	return nil
}

// misbehave is what goes wrong after the start.
func (s *service) misbehave() {
	if !s.alive.Load() || s.isDead() {
		return
	}
	s.m.Health(map[string]Problem{}) // the extension gathers events for a moment
	switch {
	case s.does("sick"):
		s.m.Health(map[string]Problem{"processor:remote": {Err: "as configured", Lasting: true}})
	case s.does("flaky"):
		s.m.Health(map[string]Problem{"processor:remote": {Err: "as configured"}})
	case s.does("panic"):
		s.crash()
	case s.does("fatal"):
		s.fails(errors.New("processor:remote: as configured"))
	}
}

// fails ends the run of the Collector, as a component can at any time.
func (s *service) fails(err error) {
	s.m.Fatal(err)
	go func() {
		select {
		case s.fatal <- err:
		case <-s.over:
		case <-s.dead:
		}
	}()
}

// shutdown is service.Shutdown, with the extension's among it.
func (s *service) shutdown(inReload bool, failed string) error {
	if s.isDead() {
		return nil
	}
	if s.attached {
		s.m.NotReady()
	}
	s.process.mu.Lock()
	s.process.running, s.process.ready = "", false
	s.process.mu.Unlock()
	select {
	case <-time.After(time.Duration(s.w.drain.Load())):
	case <-s.dead:
		return nil
	}
	if s.does("fatal at the end") {
		s.fails(errors.New("use of closed connection"))
	}
	s.alive.Store(false)
	again := inReload || s.w.runner && reload.GoesOn()
	detach := func() error { return s.m.Unstarted(again, zap.NewNop()) }
	if s.attached {
		detach = func() error { return s.m.Detach(again, failed) }
	}
	err := detach()
	if s.does("shutdown") {
		err = errors.Join(err, errors.New("the exporter could not flush"))
	}
	return err
}

// fakeChecker makes dry runs that take a moment.
type fakeChecker struct{}

func (fakeChecker) Check(ctx context.Context, source dryrun.Source) (*dryrun.Result, error) {
	conf := confmap.NewFromStringMap(source.Candidate)
	for _, key := range []string{"receivers::base::do", "processors::remote::do"} {
		switch conf.Get(key) {
		case "dry run":
			return nil, errors.New("unknown component")
		case "slow":
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	time.Sleep(5 * time.Millisecond)
	return &dryrun.Result{}, ctx.Err()
}

func (fakeChecker) Resolve(context.Context, dryrun.Source) (*dryrun.Result, error) {
	return &dryrun.Result{}, nil
}

func (fakeChecker) Aliases(_, name string) []string { return []string{name} }
