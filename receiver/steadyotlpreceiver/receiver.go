package steadyotlpreceiver

import (
	"context"
	"errors"
	"sync"
	"weak"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/xconsumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"

	"github.com/collie-otel/collie/internal/reload"
)

// consumers are where the signals of one generation go. A signal that is in no pipeline has none.
type consumers struct {
	traces   consumer.Traces
	metrics  consumer.Metrics
	logs     consumer.Logs
	profiles xconsumer.Profiles
}

// steadyReceiver is one run of the Collector's view of an inner receiver, which outlives it in a reload. As with the
// Collector's own, one object serves all signals, and each of them starts it and shuts it down.
type steadyReceiver struct {
	cfg  *otlpreceiver.Config
	set  receiver.Settings
	next consumers // complete when the first signal is started

	mu      sync.Mutex // guards what follows
	started bool
	stopped bool
	inner   *inner // set while it serves this receiver
}

// Start takes over the inner receiver that a reload has left, or starts a new one, and lets the requests in.
func (r *steadyReceiver) Start(ctx context.Context, host component.Host) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stopped:
		return errors.New("the receiver has been shut down")
	case r.started:
		if r.inner != nil {
			r.inner.host.add(host)
		}
		return nil
	}
	r.started = true
	in := steady.adopt(r, host.GetExtensions())
	steady.forget(created{r.cfg, weak.Make(r)})
	fresh := in == nil
	var err error
	if fresh {
		if in, err = startInner(ctx, r, host); err != nil {
			return err
		}
	}
	gen, err := in.bind(ctx, r, host)
	switch {
	case err == nil:
	case fresh:
		in.gate.end()
		return errors.Join(err, in.shutdown(ctx))
	default:
		steady.park(in)
		return err
	}
	in.serve(gen, r, host)
	r.inner = in
	return nil
}

// Shutdown returns when no request is in the pipelines any more. If another generation follows, new requests wait for it,
// else the sockets are closed first.
func (r *steadyReceiver) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	steady.forget(created{r.cfg, weak.Make(r)})
	in := r.inner
	r.inner = nil
	switch {
	case in == nil:
		return nil
	case in.broken.Load() || !reload.GoesOn():
		return in.shutdown(ctx)
	}
	err := in.gate.close(ctx)
	in.host.clear()
	steady.park(in)
	return err
}

// host is what the inner receiver sees of the current generation's hosts, of which there is one per signal.
type host struct {
	in *inner

	mu         sync.Mutex // guards what follows
	extensions map[component.ID]component.Component
	reporters  []componentstatus.Reporter
}

// GetExtensions is of use during the inner receiver's start only.
func (h *host) GetExtensions() map[component.ID]component.Component {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.extensions
}

// Report hands on what the inner receiver says of its health. Its starting and stopping are its own; those of the
// generations are reported by the Collector itself.
func (h *host) Report(event *componentstatus.Event) {
	switch event.Status() {
	case componentstatus.StatusStarting, componentstatus.StatusStopping, componentstatus.StatusStopped:
		return
	case componentstatus.StatusFatalError, componentstatus.StatusPermanentError:
		h.in.broken.Store(true)
	}
	h.mu.Lock()
	reporters := h.reporters
	h.mu.Unlock()
	for _, r := range reporters {
		r.Report(event)
	}
}

func (h *host) add(of component.Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r, ok := of.(componentstatus.Reporter); ok {
		h.reporters = append(h.reporters[:len(h.reporters):len(h.reporters)], r)
	}
}

func (h *host) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.extensions, h.reporters = nil, nil
}
