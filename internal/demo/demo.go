// Package demo runs a small fleet on loopback for people to look at: a control plane, a load generator, two agents, a gateway and a
// sink, all of them real processes with the shipped configurations. The processes themselves belong to other packages.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/collie-otel/collie/configs"
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
	if err := errors.Join(f.examples(), f.start(ctx)); err != nil {
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
	p("load  ->  %d agents  ->  gateway  ->  sink        all on this machine, all real processes, steered by the server", len(f.agents))
	p("")
	p("%-9s %-8s %-18s %s", "ROLE", "PID", "ADDRESS", "OWN METRICS")
	p("%-9s %-8d %-18s %s", "server", f.server.PID(), f.api, "http://"+f.api+"/metrics")
	for _, m := range append(slices.Clone(f.agents), f.gateway) {
		p("%-9s %-8d %-18s %s", m.name, m.PID(), m.otlp, "http://"+m.metrics+"/metrics")
	}
	p("%-9s %-8d %s", "sink", f.sink.PID(), f.sink.otlp)
	p("%-9s %d", "load", f.load.PID())
	p("")
	p("Logs and state: %s", f.dir)
	p("Try in another terminal:")
	collie := f.cfg.Collie
	if wd, err := os.Getwd(); err == nil {
		if relative, err := filepath.Rel(wd, collie); err == nil && !strings.HasPrefix(relative, "..") {
			collie = "./" + relative
		}
	}
	if f.api != "127.0.0.1:4321" {
		p("  export COLLIE_SERVER=http://%s", f.api)
	}
	p("  %s agents list", collie)
	for _, example := range []struct{ file, role, what string }{
		{"add-attribute", "agent", "each span gets an attribute"}, {"slow-only", "gateway", "only slow traces reach the sink"},
	} {
		path := filepath.Join(f.dir, "examples", example.file+".yaml")
		p("  %s config apply -f %s --name %s --selector collie.role=%s --rollout --soak 3s    # %s", collie, path, example.file, example.role, example.what)
	}
	p("  %s sink --help; %s load --endpoint %s --rate 5000 --duration 5s", collie, collie, f.agents[0].otlp)
	if f.cfg.Duration == 0 {
		p("Ctrl-C ends it with a summary.")
	}
	p("")
}

// examples puts the example configurations where they can be applied from.
func (f *fleet) examples() error {
	files, err := fs.Sub(configs.Files, "examples")
	if err != nil {
		return err
	}
	return os.CopyFS(filepath.Join(f.dir, "examples"), files)
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
	agents, gateway := f.meters()
	_, _ = agents.read(ctx) // where the rates of the first row begin
	_, _ = gateway.read(ctx)
	for row := 0; ; row++ {
		select {
		case <-ctx.Done():
			return
		case <-f.anyExited():
			return
		case <-ticker.C:
		}
		a, errA := agents.read(ctx)
		g, errG := gateway.read(ctx)
		if errA != nil || errG != nil {
			continue // one scrape that fails is not worth a word; a process that is gone ends the loop
		}
		if row%headerEvery == 0 {
			_, _ = fmt.Fprintf(f.cfg.Out, "%30s | %31s | %s\n%10s %9s %9s | %10s %9s %10s | %s\n", "agents, spans", "gateway, spans", "",
				"accepted/s", "sent/s", "queued", "accepted/s", "sent/s", "queued", "delivered in all")
		}
		_, _ = fmt.Fprintf(f.cfg.Out, "%10.0f %9.0f %9.0f | %10.0f %9.0f %10.0f | %.0f\n",
			a.acceptedPerSecond, a.sentPerSecond, a.queued, g.acceptedPerSecond, g.sentPerSecond, g.queued, g.sent)
	}
}

// conclude prints the summary and says whether all is well.
func (f *fleet) conclude(r result) error {
	arrived := r.sink.Runs[r.load.Run] // and not what others may have sent to the demo
	_, _ = fmt.Fprintf(f.cfg.Out, "\n%d spans sent, %d acknowledged by the agents, %d arrived at the sink; %d acknowledged ones missing, %d duplicates.\n",
		r.load.Sent, r.load.Acknowledged, arrived.Distinct, r.sink.AcknowledgedMissing, arrived.Duplicates)
	if r.configured {
		_, _ = fmt.Fprintln(f.cfg.Out, "Configurations were rolled out meanwhile: what they drop is missing on purpose.")
	}
	switch {
	case r.sink.AcknowledgedMissing > 0 && r.configured:
	case r.sink.AcknowledgedMissing > 0:
		return ErrLost
	case arrived.Spans == 0:
		return errors.New("no span arrived at the sink")
	}
	return nil
}
