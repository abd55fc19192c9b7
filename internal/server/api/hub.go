package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/collie-otel/collie/internal/server/store"
)

const (
	pollInterval   = 250 * time.Millisecond
	pollBatch      = 1000
	maxListeners   = 1000
	listenerBuffer = 16 // batches, one for each poll: some 4 s
)

// hub polls the store's changes once for all who listen, while anybody does. Its goroutine begins with the first listener,
// ends with the last one or with close, and gives each batch to every listener whose buffer has room. Who has none is dropped.
type hub struct {
	store store.Store
	log   *slog.Logger

	// mu guards what follows.
	mu        sync.Mutex
	listeners map[*listener]struct{}
	stop      context.CancelFunc // of the goroutine that runs, nil if none does
	closed    bool
	running   sync.WaitGroup
}

// listener receives batches of changes; the channel is closed when it is dropped.
type listener struct{ batches chan []store.Change }

func newHub(s store.Store, log *slog.Logger) *hub {
	return &hub{store: s, log: log, listeners: map[*listener]struct{}{}}
}

// listen adds a listener, who gets at least all changes that are stored after. The revision is one that was read before; if
// nobody listens yet, the polling begins there. False: there are too many, or the hub is closed.
func (h *hub) listen(revision int64) (*listener, bool) {
	l := &listener{batches: make(chan []store.Change, listenerBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.listeners) >= maxListeners {
		return nil, false
	}
	h.listeners[l] = struct{}{}
	if h.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		h.running.Go(func() { h.poll(ctx, revision) })
	}
	return l, true
}

// leave removes a listener, and stops the polling after the last one.
func (h *hub) leave(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(l)
	if len(h.listeners) == 0 && h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// drop ends a listener's channel. Hold mu.
func (h *hub) drop(l *listener) {
	if _, there := h.listeners[l]; there {
		delete(h.listeners, l)
		close(l.batches)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	for l := range h.listeners {
		h.drop(l)
	}
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
	h.mu.Unlock()
	h.running.Wait()
}

func (h *hub) poll(ctx context.Context, last int64) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	healthy := true
	for {
		var err error
		last, err = h.pass(ctx, last)
		if ctx.Err() != nil {
			return
		}
		if err != nil && healthy {
			h.log.Warn("cannot read changes", slog.Any("error", err))
		}
		healthy = err == nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pass hands on all changes after last, and returns the new last one.
func (h *hub) pass(ctx context.Context, last int64) (int64, error) {
	for {
		changes, err := h.store.Changes(ctx, last, pollBatch)
		if err != nil || len(changes) == 0 {
			return last, err
		}
		last = changes[len(changes)-1].Revision
		if !h.publish(ctx, changes) || len(changes) < pollBatch {
			return last, nil
		}
	}
}

// publish drops the listeners that have no room. False: the goroutine was told to stop.
func (h *hub) publish(ctx context.Context, changes []store.Change) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	for l := range h.listeners {
		select {
		case l.batches <- changes:
		default:
			h.drop(l)
		}
	}
	return true
}
