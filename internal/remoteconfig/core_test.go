package remoteconfig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/confmap"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/reload"
	"github.com/collie-otel/collie/internal/statefile"
)

// process is one life of a Collector: it calls the Manager in the order, and on the goroutines, of otelcol.Collector.
type process struct {
	w       *machine
	m       *Manager
	signals chan string
	dead    chan struct{} // closed when the process does nothing any more: nothing that it does counts from then on
	die     func()
	ended   chan struct{} // closed when main has returned
	told    atomic.Bool   // to end

	mu      sync.Mutex // guards all below
	exit    error
	execed  bool
	running string // what serves, "" when nothing does
	ready   bool
	note    string
	service *service
}

var errDead = errors.New("the process is dead")

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// newProcess boots a Collector.
func newProcess(w *machine) *process {
	p := &process{w: w, m: newManager(w.file), signals: make(chan string, 3), dead: make(chan struct{}), ended: make(chan struct{})}
	p.die = sync.OnceFunc(func() { close(p.dead) })
	p.m.runner, p.m.write, p.m.exec, p.m.kill = w.runner, p.write, p.execute, p.kill
	reload.Expect(false)
	go p.main()
	return p
}

// main is Run, and what the operating system does when a process ends.
func (p *process) main() {
	defer close(p.ended)
	for {
		err := p.collect()
		if p.isDead() {
			break
		}
		retry, wait := false, time.Duration(0)
		if p.w.runner {
			retry, wait, err = p.m.ended(err)
		}
		if !retry {
			p.mu.Lock()
			p.exit = err
			p.mu.Unlock()
			break
		}
		select {
		case <-time.After(wait):
		case <-p.dead:
		}
	}
	p.die()
	p.m.mu.Lock()
	p.m.timer.Stop()
	stop := p.m.stop
	p.m.stop = nil
	p.m.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// write is the disk, on which a process may be killed, and which may fail.
func (p *process) write(path string, state any) error {
	if p.isDead() {
		return errDead
	}
	if p.w.readOnly.Load() {
		return errors.New("read-only file system")
	}
	switch p.w.killIn.Add(-1) {
	case 0:
		p.crash()
		return errDead
	case 1:
		if p.w.killAfter.Load() {
			defer p.crash()
		}
	}
	return statefile.Write(path, state)
}

// crash is what kill -9 does, or a panic.
func (p *process) crash() {
	if !p.isDead() {
		p.w.crashed()
	}
	p.die()
}

func (p *process) execute() error {
	if p.isDead() || p.w.execFails.Load() {
		return errors.New("exec failed")
	}
	p.mu.Lock()
	p.execed = true
	p.mu.Unlock()
	p.die()
	return errors.New("executed")
}

func (p *process) kill() error {
	p.die()
	return nil
}

// collector is one otelcol.Collector.
type collector struct {
	*process
	watch chan error
	fatal chan error
	over  chan struct{}
	close confmap.CloseFunc
}

// collect is otelcol.Collector.Run.
func (p *process) collect() error {
	c := &collector{process: p, watch: make(chan error, 1), fatal: make(chan error), over: make(chan struct{})}
	defer close(c.over)
	s, err := c.setup(false)
	if err != nil {
		return err
	}
	for {
		select {
		case <-p.dead:
			s.alive.Store(false)
			return nil
		case <-c.fatal:
			return c.end(s)
		case <-c.watch:
		case name := <-p.signals:
			if name != "HUP" {
				return c.end(s)
			}
		}
		if err := s.shutdown(true, ""); err != nil {
			return fmt.Errorf("failed to shutdown the retiring config: %w", err)
		}
		if s, err = c.setup(true); err != nil {
			return err
		}
	}
}

// end is the end in order: the provider's first.
func (c *collector) end(s *service) error {
	err := c.close(context.Background())
	if c.isDead() {
		return nil
	}
	c.m.Closing()
	close(c.watch)
	return errors.Join(err, s.shutdown(false, ""))
}

// setup resolves the configuration and starts the service.
func (c *collector) setup(inReload bool) (*service, error) {
	if c.isDead() {
		return nil, errDead
	}
	if c.close != nil {
		_ = c.close(context.Background())
	}
	if c.w.otherFileGone.Load() {
		return nil, errors.New("open other.yaml: no such file")
	}
	var fired atomic.Int32
	retrieved, err := c.m.Retrieve(context.Background(), func(e *confmap.ChangeEvent) {
		if fired.Add(1) > 1 {
			c.w.t.Error("the watcher was called twice after one Retrieve")
		}
		c.watch <- e.Error
	})
	if c.isDead() {
		return nil, errDead
	}
	if err != nil {
		return nil, err
	}
	c.close = retrieved.Close
	conf, err := retrieved.AsConf()
	if err != nil {
		return nil, err
	}
	s := &service{collector: c, conf: conf}
	if s.does("unmarshal") || s.remote() != "" && s.remote() == c.w.unreadable.Load() {
		return nil, errors.New("unknown key")
	}
	c.w.sawStart(s)
	c.process.mu.Lock()
	c.process.service = s
	c.process.mu.Unlock()
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.shutdown(inReload, "processor:remote: "+err.Error()))
	}
	return s, nil
}

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
		Checker: fakeChecker{}, Logger: zap.NewNop(), Grace: 20 * time.Second, Reread: func() {}, ReportConnections: func(Status) {},
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
