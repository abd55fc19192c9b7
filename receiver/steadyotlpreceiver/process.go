package steadyotlpreceiver

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"

	"github.com/collie-otel/collie/internal/reload"
)

const (
	// parkFor is how long sockets stay open with no receiver behind them. It is longer than any request is held: until the
	// old exporters have been drained nothing else starts, and a slow backend makes that last.
	parkFor = 30 * time.Second
	// endWithin is how long the end of an inner receiver is waited for. Its sockets are closed by then; what is left are
	// requests whose clients do not go on sending them.
	endWithin = 5 * time.Second
)

// steady is the only state of this package: what lives longer than one configuration has no other place, since the
// Collector makes factories and receivers anew for each.
var steady = process{parkFor: parkFor, created: map[*otlpreceiver.Config]weak.Pointer[steadyReceiver]{}}

type process struct {
	parkFor time.Duration

	mu sync.Mutex // guards what follows
	// created are the receivers that may be asked for once more, for another signal, or that will be started. It keeps none
	// of them alive: what validation creates is never started, and nobody says that it is not needed any more.
	created map[*otlpreceiver.Config]weak.Pointer[steadyReceiver]
	parked  []*inner
}

// create returns the one receiver of a configuration, and has it serve one more signal.
func (p *process) create(set receiver.Settings, cfg component.Config, add func(*consumers)) *steadyReceiver {
	key := cfg.(*otlpreceiver.Config)
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.created[key].Value()
	if r == nil {
		r = &steadyReceiver{cfg: key, set: set}
		entry := created{key, weak.Make(r)}
		p.created[key] = entry.receiver
		runtime.AddCleanup(r, p.forget, entry)
	}
	add(&r.next)
	return r
}

type created struct {
	key      *otlpreceiver.Config
	receiver weak.Pointer[steadyReceiver]
}

func (p *process) forget(c created) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.created[c.key] == c.receiver {
		delete(p.created, c.key)
	}
}

// park keeps an inner receiver, whose gate is closed, for the next generation.
func (p *process) park(in *inner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parked = append(p.parked, in)
	reload.OnCreated(p.settle)
	in.linger = time.AfterFunc(p.parkFor, func() {
		if p.remove(in) {
			in.end()
		}
	})
}

func (p *process) remove(in *inner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.parked, in)
	if i < 0 {
		return false
	}
	p.parked = slices.Delete(p.parked, i, i+1)
	return true
}

// settle closes what no receiver of a generation wants. It is called when all of them have been created, and before any
// of them opens a socket, since that may be on the same address. The resource is one per generation.
func (p *process) settle(generation pcommon.Resource, extensions map[component.ID]component.Component) {
	p.mu.Lock()
	var wanted []identity
	for _, entry := range p.created {
		if r := entry.Value(); r != nil && r.set.Resource == generation {
			wanted = append(wanted, identify(r, extensions))
		}
	}
	var unwanted []*inner
	p.parked = slices.DeleteFunc(p.parked, func(in *inner) bool {
		if slices.ContainsFunc(wanted, in.is) {
			return false
		}
		in.linger.Stop()
		unwanted = append(unwanted, in)
		return true
	})
	p.mu.Unlock()
	var ending sync.WaitGroup
	for _, in := range unwanted {
		ending.Go(in.end)
	}
	ending.Wait()
}

// adopt returns the parked inner receiver that is as r wants it, or nil.
func (p *process) adopt(r *steadyReceiver, extensions map[component.ID]component.Component) *inner {
	p.settle(r.set.Resource, extensions)
	mine := identify(r, extensions)
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.parked, func(in *inner) bool { return in.is(mine) })
	if i < 0 {
		return nil
	}
	in := p.parked[i]
	in.linger.Stop()
	p.parked = slices.Delete(p.parked, i, i+1)
	return in
}

// end closes the sockets of a receiver that nobody wants any more; what waits in its gate is told to come back.
func (in *inner) end() {
	in.gate.end()
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	done := make(chan struct{})
	go func() { // ends with the last request, as the Collector's own receiver does
		defer close(done)
		_ = in.shutdown(ctx)
	}()
	select {
	case <-done:
	case <-time.After(endWithin + time.Second):
	}
}
