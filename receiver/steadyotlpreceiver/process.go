package steadyotlpreceiver

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
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

// adopt returns the parked inner receiver that is as r wants it, or nil. It is called when the first receiver of a
// generation starts, so all of them have been created: what none of them wants is closed, before any of them opens a
// socket, since it may be on the same address.
func (p *process) adopt(r *steadyReceiver, extensions map[component.ID]component.Component) *inner {
	p.mu.Lock()
	mine := identify(r, extensions)
	wanted := p.wanted(r, extensions)
	var adopted *inner
	var unwanted []*inner
	p.parked = slices.DeleteFunc(p.parked, func(in *inner) bool {
		switch {
		case adopted == nil && in.is(mine):
			adopted = in
		case slices.ContainsFunc(wanted, in.is):
			return false
		default:
			unwanted = append(unwanted, in)
		}
		in.linger.Stop()
		return true
	})
	p.mu.Unlock()
	var ending sync.WaitGroup
	for _, in := range unwanted {
		ending.Go(in.end)
	}
	ending.Wait()
	return adopted
}

// wanted is what the other receivers of r's generation will ask for. The resource is one per generation.
func (p *process) wanted(r *steadyReceiver, extensions map[component.ID]component.Component) []identity {
	var wanted []identity
	for _, entry := range p.created {
		if other := entry.Value(); other != nil && other != r && other.set.Resource == r.set.Resource {
			wanted = append(wanted, identify(other, extensions))
		}
	}
	return wanted
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
