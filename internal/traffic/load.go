package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

const (
	firstBackoff  = 50 * time.Millisecond
	longestWait   = time.Second
	progressEvery = time.Second
)

// RunLoad sends spans until the configured end or the end of the context, and returns when the last request has been
// answered or has failed; that is at most cfg.Timeout after the end of the context. Refused and failed requests are counted
// and are not an error; a bad configuration is one (joined *ConfigError), and so are sequence numbers that run out.
func RunLoad(ctx context.Context, cfg LoadConfig) (LoadSummary, error) {
	if err := cfg.Validate(); err != nil {
		return LoadSummary{}, err
	}
	cfg = cfg.withDefaults()
	c, err := newClient(ctx, cfg)
	if err != nil {
		return LoadSummary{}, err
	}
	start := time.Now()
	l := &loader{cfg: cfg, client: c, generator: newGenerator(cfg), schedule: newSchedule(cfg, start), tally: newTally(cfg, start)}
	stopProgress := l.reportProgress()
	errs := make([]error, cfg.Workers)
	var workers sync.WaitGroup
	for i := range cfg.Workers {
		workers.Go(func() { errs[i] = l.work(ctx) })
	}
	workers.Wait()
	summary := l.tally.result()
	stopProgress()
	if err := c.close(); err != nil {
		errs = append(errs, fmt.Errorf("close connections: %w", err))
	}
	return summary, firstError(errs)
}

// firstError leaves out that all workers end with the same error.
func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// loader is one run. Its workers share the client, the schedule and the tally, each of which has its own lock.
type loader struct {
	cfg       LoadConfig
	client    client
	generator *generator
	schedule  *schedule
	tally     *tally
}

// work sends job after job until there are none or the context ends.
func (l *loader) work(ctx context.Context) error {
	for ctx.Err() == nil {
		j, ok, err := l.schedule.next(time.Now())
		if !ok || err != nil {
			return err
		}
		if !sleep(ctx, time.Until(j.due)) {
			return nil
		}
		l.send(ctx, &j)
	}
	return nil
}

// send delivers one job. A request in flight outlives the context: its answer is what the summary is about.
func (l *loader) send(ctx context.Context, j *job) {
	request := ptraceotlp.NewExportRequestFromTraces(l.generator.traces(j))
	l.tally.begin(j, l.kinds(j))
	wait := firstBackoff
	for {
		out := l.attempt(ctx, j, request)
		if out.code == "" || !l.cfg.Retry || !sleep(ctx, jitter(wait)) {
			l.tally.end(j, out)
			return
		}
		wait = min(2*wait, longestWait)
		l.tally.again(j)
	}
}

func (l *loader) attempt(ctx context.Context, j *job, request ptraceotlp.ExportRequest) outcome {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.Timeout)
	defer cancel()
	sent := time.Now()
	out := l.client.export(ctx, j.request%len(l.cfg.Endpoints), request)
	l.tally.attempt(out, time.Since(sent))
	return out
}

// kinds are the kinds of the traces that begin with the job: those whose root it carries.
func (l *loader) kinds(j *job) map[string]int64 {
	if j.service > 0 || j.fromSpan > 0 {
		return nil
	}
	kinds := make(map[string]int64, 3)
	for number := j.firstTrace; number < j.firstTrace+j.traces; number++ {
		kinds[traceHash(l.generator.seed, number).kind(l.cfg.SlowRatio, l.cfg.ErrorRatio)]++
	}
	return kinds
}

// reportProgress calls OnProgress every second until the returned function is called, which waits for the last call.
func (l *loader) reportProgress() (stop func()) {
	if l.cfg.OnProgress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				l.cfg.OnProgress(l.tally.progress())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// jitter is between half of a duration and all of it, so that workers that failed together do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2) }

// sleep reports whether it was not cut short by the end of the context.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// ErrNumbersUsedUp is returned when a run without a limit has sent all 2^32 sequence numbers.
var ErrNumbersUsedUp = errors.New("sequence numbers of the run are used up: start another run")
