package harness

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// readyLimit is how long a Collector may take from start to ready: seconds on a busy machine, never this long.
const readyLimit = 60 * time.Second

// Options says which Collector to run.
type Options struct {
	// Name heads its log lines when a test fails; default "collector".
	Name string
	// Configs are the configuration files in order: names under configs/, or absolute paths.
	Configs []string
	// Args are further arguments of the command line.
	Args []string
	// Env is added to the variables that the harness sets itself (listen address, ports, state directory).
	Env map[string]string
	// Listen is the loopback address of all its listeners; default 127.0.0.1.
	Listen string
	// GRPCPort fixes the OTLP/gRPC port; 0 takes a free one.
	GRPCPort int
	// MayPanic says that a panic in the log is what the test is about.
	MayPanic bool
	// Binary is the program; default the built otelcol-collie.
	Binary string
	// Prefix is put before the command line, e.g. a command that enters a namespace and executes the rest.
	Prefix []string
}

// Collector is one otelcol-collie: its ports and its state directory stay the same through restarts.
type Collector struct {
	t                           testing.TB
	opts                        Options
	dir                         string
	env                         []string
	grpc, http, health, metrics string
	run                         *Process // the current run, ended or not
}

// Start runs a Collector and waits until it is ready. The test's end stops it.
func Start(t testing.TB, opts Options) *Collector {
	t.Helper()
	c := New(t, opts)
	c.Start()
	return c
}

// New prepares a Collector without starting it: its ports are known from here on.
func New(t testing.TB, opts Options) *Collector {
	t.Helper()
	if opts.Name == "" {
		opts.Name = "collector"
	}
	if opts.Listen == "" {
		opts.Listen = "127.0.0.1"
	}
	if opts.GRPCPort == 0 {
		opts.GRPCPort = FreePort(t, opts.Listen)
	}
	c := &Collector{t: t, opts: opts, dir: t.TempDir()}
	env := map[string]string{
		"PATH":                      "/usr/bin:/bin",
		"COLLIE_LISTEN":             opts.Listen,
		"COLLIE_STATE_DIR":          c.dir,
		"COLLIE_HOST_NAME":          "test-host",
		"COLLIE_RETRY_MAX_INTERVAL": "1s",
	}
	// Whoever names no backend gets one that refuses, and not what happens to listen on the default port.
	for _, variable := range []string{"COLLIE_BACKEND_ENDPOINT", "COLLIE_GATEWAY_ENDPOINT", "COLLIE_BALANCER_ENDPOINT"} {
		env[variable] = "127.0.0.1:9"
	}
	address := func(variable string, port int) string {
		env[variable] = fmt.Sprint(port)
		return fmt.Sprintf("%s:%d", opts.Listen, port)
	}
	c.grpc = address("COLLIE_OTLP_GRPC_PORT", opts.GRPCPort)
	c.http = address("COLLIE_OTLP_HTTP_PORT", FreePort(t, opts.Listen))
	c.health = address("COLLIE_HEALTH_PORT", FreePort(t, opts.Listen))
	c.metrics = address("COLLIE_METRICS_PORT", FreePort(t, opts.Listen))
	for k, v := range opts.Env {
		env[k] = v
	}
	for k, v := range env {
		c.env = append(c.env, k+"="+v)
	}
	slices.Sort(c.env)
	return c
}

// Start begins a run and waits until the Collector is ready.
func (c *Collector) Start() {
	c.t.Helper()
	c.Launch()
	c.AwaitReady()
}

// Launch begins a run without waiting for anything.
func (c *Collector) Launch() {
	c.t.Helper()
	c.run = start(c.t, c.opts.Name, c.dir, c.env, slices.Concat(c.opts.Prefix, c.argv(), c.opts.Args))
	c.run.mayPanic = c.opts.MayPanic
}

// Signal sends a signal to the process.
func (c *Collector) Signal(sig os.Signal) { c.run.Signal(sig) }

func (c *Collector) argv(subcommand ...string) []string {
	binary := c.opts.Binary
	if binary == "" {
		binary = Binary(c.t, "otelcol-collie")
	}
	argv := append([]string{binary}, subcommand...)
	for _, config := range c.opts.Configs {
		if config[0] != '/' {
			config = Config(c.t, config)
		}
		argv = append(argv, "--config="+config)
	}
	return argv
}

// AwaitReady waits until the health endpoint answers 200.
func (c *Collector) AwaitReady() {
	c.t.Helper()
	Await(c.t, readyLimit, c.opts.Name+" ready", func() (bool, any) {
		c.run.MustRun()
		resp, err := http.Get("http://" + c.health)
		if err != nil {
			return false, err
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
}

// Validate runs the subcommand validate with the same files and environment, and returns what it prints.
func (c *Collector) Validate() (output string, err error) {
	argv := c.argv("validate")
	ctx, cancel := context.WithTimeout(c.t.Context(), readyLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Stop sends SIGTERM, requires exit 0, and returns how long it took.
func (c *Collector) Stop() time.Duration {
	c.t.Helper()
	return c.run.MustStop()
}

// Wait waits at most limit for the process to end by itself, and returns how it did; nil is exit code 0.
func (c *Collector) Wait(limit time.Duration) error {
	c.t.Helper()
	select {
	case <-c.run.Exited():
		return c.run.Process.Wait()
	case <-time.After(limit):
		c.t.Fatalf("%s has not ended within %v\n%s", c.opts.Name, limit, tail(c.run.Log(), 20))
		return nil
	}
}

// Kill ends the process with SIGKILL.
func (c *Collector) Kill() { _ = c.run.Kill() }

// Running says whether the process is there.
func (c *Collector) Running() bool { return c.run.Running() }

// PID is the process id of the current run.
func (c *Collector) PID() int { return c.run.PID() }

// Log is all that it has printed, restarts included.
func (c *Collector) Log() string { return c.run.Log() }

// RSS is its anonymous resident memory in bytes.
func (c *Collector) RSS() int64 { return c.run.RSS() }

// CPU is the CPU time that it has used.
func (c *Collector) CPU() time.Duration { return c.run.CPU() }

// GRPC, HTTP and Metrics are host:port of its listeners: OTLP/gRPC, OTLP/HTTP, own metrics.
func (c *Collector) GRPC() string    { return c.grpc }
func (c *Collector) HTTP() string    { return c.http }
func (c *Collector) Metrics() string { return c.metrics }

// StateDir is where it keeps its queues.
func (c *Collector) StateDir() string { return c.dir }
