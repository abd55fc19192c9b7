// Package demo runs a small fleet on loopback for people to look at: a load generator, an agent, a gateway and a sink,
// all of them real processes with the shipped configurations. The processes themselves belong to other packages.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Config says what to run.
type Config struct {
	// Otelcol and Collie are the paths of the two programs.
	Otelcol, Collie string
	// Duration ends the demo; 0 runs until the context ends.
	Duration time.Duration
	// Rate is the load in spans per second.
	Rate int
	// Out takes what people read.
	Out io.Writer
}

// ErrLost is returned when spans that were acknowledged have not arrived.
var ErrLost = errors.New("acknowledged spans are missing at the sink")

// Run starts the fleet, shows what flows through it, stops it from the source to the sink, and sums up.
// The error is nil when spans flowed from end to end and none was lost.
func Run(ctx context.Context, cfg Config) error {
	dir, err := os.MkdirTemp("", "collie-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f := &fleet{cfg: cfg, dir: dir}
	defer f.kill()
	if err := f.start(ctx); err != nil {
		return err
	}
	f.introduce()
	f.watch(ctx)
	result, err := f.finish()
	if err != nil {
		return err
	}
	return f.conclude(result)
}

// introduce prints what runs where, and what to do with it.
func (f *fleet) introduce() {
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(f.cfg.Out, format+"\n", args...) }
	p("load  ->  agent  ->  gateway  ->  sink        all on this machine, all real processes")
	p("")
	p("%-9s %-8s %-18s %s", "ROLE", "PID", "OTLP GRPC", "OWN METRICS")
	p("%-9s %-8d %-18s %s", "agent", f.agent.PID(), f.agent.otlp, "http://"+f.agent.metrics+"/metrics")
	p("%-9s %-8d %-18s %s", "gateway", f.gateway.PID(), f.gateway.otlp, "http://"+f.gateway.metrics+"/metrics")
	p("%-9s %-8d %s", "sink", f.sink.PID(), f.sink.otlp)
	p("%-9s %d", "load", f.load.PID())
	p("")
	p("Logs and state: %s", f.dir)
	p("Try in another terminal:  %s load --endpoint %s --rate 5000 --duration 5s", filepath.Base(f.cfg.Collie), f.agent.otlp)
	if f.cfg.Duration == 0 {
		p("Ctrl-C ends it with a summary.")
	}
	p("")
}

// headerEvery repeats the header of the live numbers after so many rows.
const headerEvery = 20

// watch prints a row of live numbers each second until the time is over, the context ends, or a process dies.
func (f *fleet) watch(ctx context.Context) {
	if f.cfg.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.cfg.Duration)
		defer cancel()
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var agent, gateway meter
	_, _ = agent.read(ctx, f.agent.metrics) // where the rates of the first row begin
	_, _ = gateway.read(ctx, f.gateway.metrics)
	for row := 0; ; row++ {
		select {
		case <-ctx.Done():
			return
		case <-f.anyExited():
			return
		case <-ticker.C:
		}
		a, errA := agent.read(ctx, f.agent.metrics)
		g, errG := gateway.read(ctx, f.gateway.metrics)
		if errA != nil || errG != nil {
			continue // one scrape that fails is not worth a word; a process that is gone ends the loop
		}
		if row%headerEvery == 0 {
			_, _ = fmt.Fprintf(f.cfg.Out, "%30s | %31s | %s\n%10s %9s %9s | %10s %9s %10s | %s\n", "agent, spans", "gateway, spans", "",
				"accepted/s", "sent/s", "queued", "accepted/s", "sent/s", "queued", "delivered in all")
		}
		_, _ = fmt.Fprintf(f.cfg.Out, "%10.0f %9.0f %9.0f | %10.0f %9.0f %10.0f | %.0f\n",
			a.acceptedPerSecond, a.sentPerSecond, a.queued, g.acceptedPerSecond, g.sentPerSecond, g.queued, g.sent)
	}
}

// conclude prints the summary and says whether all is well.
func (f *fleet) conclude(r result) error {
	arrived := r.sink.Runs[r.load.Run] // and not what others may have sent to the demo
	_, _ = fmt.Fprintf(f.cfg.Out, "\n%d spans sent, %d acknowledged by the agent, %d arrived at the sink; %d acknowledged ones missing, %d duplicates.\n",
		r.load.Sent, r.load.Acknowledged, arrived.Distinct, r.sink.AcknowledgedMissing, arrived.Duplicates)
	switch {
	case r.sink.AcknowledgedMissing > 0:
		return ErrLost
	case arrived.Spans == 0:
		return errors.New("no span arrived at the sink")
	}
	return nil
}
