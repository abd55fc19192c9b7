package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/collie-otel/collie/internal/client"
	"github.com/collie-otel/collie/internal/process"
	"github.com/collie-otel/collie/internal/traffic"
)

const (
	host       = "127.0.0.1"
	startLimit = 60 * time.Second
	drainLimit = 20 * time.Second
	// samplingLimit is what tail sampling with a short wait needs.
	samplingLimit = 5 * time.Second
	stopGrace     = 30 * time.Second
)

// member is one process of the fleet. A Collector has all addresses, the sink only otlp, the load and the server none.
type member struct {
	*process.Process
	name                  string
	otlp, health, metrics string // host:port
	stdout                *bytes.Buffer
	logPath               string
}

// fleet is the running demo.
type fleet struct {
	cfg                         Config
	dir                         string // logs, state and configurations
	server, sink, gateway, load *member
	agents                      []*member
	api, opamp                  string // host:port of the server
}

func (f *fleet) loadSummaryPath() string { return filepath.Join(f.dir, "load.json") }

// members are in the order of the flow.
func (f *fleet) members() []*member {
	return slices.Concat([]*member{f.load}, f.agents, []*member{f.gateway, f.sink, f.server})
}

// anyExited is closed when one of them has ended by itself.
func (f *fleet) anyExited() <-chan struct{} {
	for _, m := range f.members() {
		if !m.Running() {
			return m.Exited()
		}
	}
	return nil
}

// kill ends what an error has left running.
func (f *fleet) kill() {
	for _, m := range f.members() {
		if m != nil && m.Process != nil && m.Running() {
			_ = m.Kill()
		}
	}
}

// result is what the two ends say at the end.
type result struct {
	load traffic.LoadSummary
	// configured says that somebody has rolled out configurations, which may drop spans on purpose.
	configured bool
	sink       struct {
		traffic.SinkSummary
		AcknowledgedMissing int64 `json:"acknowledged_missing"`
	}
}

// finish stops the source, lets the rest drain, and stops the others in the order of the flow.
func (f *fleet) finish() (result, error) {
	for _, m := range f.members() {
		if !m.Running() {
			return result{}, m.died()
		}
	}
	var r result
	f.load.Signal(syscall.SIGINT)
	_ = f.load.Wait() // exit code 1 says that a request failed, and so does the summary
	if err := json.Unmarshal(f.load.stdout.Bytes(), &r.load); err != nil {
		return result{}, fmt.Errorf("read the summary of the load: %w", err)
	}
	if err := os.WriteFile(f.loadSummaryPath(), f.load.stdout.Bytes(), 0o600); err != nil {
		return result{}, fmt.Errorf("keep the summary of the load: %w", err)
	}
	r.configured = f.configured()
	f.drain(r.configured)
	for _, m := range append(slices.Clone(f.agents), f.gateway, f.server) {
		if err := m.Stop(stopGrace); err != nil {
			return result{}, fmt.Errorf("stop the %s: %w", m.name, err)
		}
	}
	_ = f.sink.Stop(stopGrace) // exit code 1 says that spans are missing, and so does the summary
	if err := json.Unmarshal(f.sink.stdout.Bytes(), &r.sink); err != nil {
		return result{}, fmt.Errorf("read the summary of the sink: %w", err)
	}
	return r, nil
}

// drain waits until all queues have been seen empty and what went in came out; what is left when the limit runs out the summary shows
// as missing. Where configurations were rolled out, what went in need not come out: the empty queues have to do, for a while.
func (f *fleet) drain(configured bool) {
	limit := drainLimit
	if configured {
		limit = samplingLimit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	agents, gateway := f.meters()
	for ctx.Err() == nil {
		a, errA := agents.read(ctx)
		g, errG := gateway.read(ctx)
		if !configured && errA == nil && errG == nil && a.queued == 0 && g.queued == 0 && g.accepted >= a.accepted && g.sent >= g.accepted {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// meters read the agents together, and the gateway.
func (f *fleet) meters() (agents, gateway *meter) {
	agents = &meter{}
	for _, a := range f.agents {
		agents.addresses = append(agents.addresses, a.metrics)
	}
	return agents, &meter{addresses: []string{f.gateway.metrics}}
}

// configured asks the server whether anything was rolled out.
func (f *fleet) configured() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := client.New(client.Options{Server: "http://" + f.api})
	if err != nil {
		return false
	}
	rollouts, err := c.Rollouts(ctx)
	return err == nil && len(rollouts.Rollouts) > 0
}
