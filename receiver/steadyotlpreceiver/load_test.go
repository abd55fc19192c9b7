package steadyotlpreceiver

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// 200 requests a second over gRPC, on one connection with the default back-off, and 200 over HTTP, while 20 generations
// follow each other: none fails, and each one arrives once.
func TestNoRequestFailsOverReloads(t *testing.T) {
	for _, takes := range []time.Duration{0, 500 * time.Millisecond} {
		t.Run(takes.String(), func(t *testing.T) {
			grpcAddress, httpAddress := freeAddress(t), freeAddress(t)
			s := spec{config: both(grpcAddress, httpAddress)}
			first := &sink{takes: takes}
			s.next.traces = first
			run, sinks := begin(t, s), []*sink{first}

			load := startLoad(t, grpcAddress, httpAddress)
			for range 20 {
				load.awaitSent(t, 20)
				next := &sink{takes: takes}
				s.next.traces = next
				run.stop(t, true)
				run = create(t, newHost(nil), s)
				require.NoError(t, run.start(t))
				sinks = append(sinks, next)
			}
			sent := load.stop()
			run.stop(t, false)
			require.Empty(t, load.failures())
			var received int64
			for _, s := range sinks {
				received += s.spans.Load()
			}
			require.Equal(t, sent, received)
			require.Empty(t, parkedNow())
			t.Logf("%d requests over 20 reloads, none failed", sent)
		})
	}
}

type load struct {
	sent    atomic.Int64
	cancel  context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	errs    []error
}

func startLoad(t *testing.T, grpcAddress, httpAddress string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	conn, c := dial(t, grpcAddress), client(t)
	l.every(ctx, 5*time.Millisecond, func(ctx context.Context) error { return export(ctx, conn) })
	l.every(ctx, 5*time.Millisecond, func(ctx context.Context) error {
		_, err := post(ctx, c, fmt.Sprintf("http://%s/v1/traces", httpAddress))
		return err
	})
	return l
}

func (l *load) every(ctx context.Context, interval time.Duration, send func(context.Context) error) {
	l.running.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			l.running.Go(func() {
				l.sent.Add(1)
				limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
				defer cancel()
				if err := send(limited); err != nil {
					l.mu.Lock()
					defer l.mu.Unlock()
					l.errs = append(l.errs, err)
				}
			})
		}
	})
}

func (l *load) awaitSent(t *testing.T, more int64) {
	t.Helper()
	from := l.sent.Load()
	require.Eventually(t, func() bool { return l.sent.Load() >= from+more }, 10*time.Second, time.Millisecond)
}

func (l *load) stop() int64 {
	l.cancel()
	l.running.Wait()
	return l.sent.Load()
}

func (l *load) failures() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errs
}
