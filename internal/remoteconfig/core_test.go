package remoteconfig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/confmap"

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
