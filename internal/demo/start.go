package demo

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/collie-otel/collie/configs"
	"github.com/collie-otel/collie/internal/process"
)

// start starts the server, and then from the sink to the source, so that nothing is sent to nobody.
func (f *fleet) start(ctx context.Context) error {
	if err := f.startServer(ctx); err != nil {
		return err
	}
	if err := f.startSink(); err != nil {
		return err
	}
	var err error
	if f.gateway, err = f.startCollector(ctx, "gateway", 10000, map[string]string{"COLLIE_BACKEND_ENDPOINT": f.sink.otlp}); err != nil {
		return err
	}
	endpoints := []string{}
	for i := range agents {
		name := fmt.Sprintf("agent-%d", i+1)
		a, err := f.startCollector(ctx, name, i*20000, map[string]string{"COLLIE_GATEWAY_ENDPOINT": f.gateway.otlp, "COLLIE_HOST_NAME": name})
		if err != nil {
			return err
		}
		f.agents, endpoints = append(f.agents, a), append(endpoints, a.otlp)
	}
	f.load = &member{name: "load"}
	return f.run(f.load, nil, f.cfg.Collie, "load", "-o", "json", "--endpoint", strings.Join(endpoints, ","), "--rate", strconv.Itoa(f.cfg.Rate), "--retry")
}

// agents is how many there are.
const agents = 2

func (f *fleet) startServer(ctx context.Context) error {
	var ports [2]int
	for i, preferred := range []int{4320, 4321} {
		var err error
		if ports[i], err = port(preferred); err != nil {
			return err
		}
	}
	f.opamp, f.api = address(ports[0]), address(ports[1])
	f.server = &member{name: "server", health: f.api + "/readyz"}
	if err := f.run(f.server, nil, f.cfg.Collie, "server", "--dev", "--data-dir", filepath.Join(f.dir, "server"),
		"--opamp-listen", f.opamp, "--listen", f.api); err != nil {
		return err
	}
	return f.server.awaitReady(ctx)
}

func (f *fleet) startSink() error {
	sinkPort, err := port(5317)
	if err != nil {
		return err
	}
	sinkHTTP, err := port(5318)
	if err != nil {
		return err
	}
	f.sink = &member{name: "sink", otlp: address(sinkPort)}
	return f.run(f.sink, nil, f.cfg.Collie, "sink", "-o", "json", "--acknowledged", f.loadSummaryPath(),
		"--listen", f.sink.otlp, "--http-listen", address(sinkHTTP))
}

// startCollector runs the shipped configurations of that role and waits until it is ready. It gets the usual ports plus
// an offset, where these are free.
func (f *fleet) startCollector(ctx context.Context, name string, offset int, env map[string]string) (*member, error) {
	role, _, _ := strings.Cut(name, "-")
	var arguments []string
	for scheme, file := range map[string]string{"": role + ".yaml", "opamp:": "managed-" + role + ".yaml"} {
		config, err := configs.Files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the shipped configuration: %w", err)
		}
		path := filepath.Join(f.dir, file)
		if err := os.WriteFile(path, config, 0o600); err != nil {
			return nil, fmt.Errorf("write the configuration of the %s: %w", name, err)
		}
		arguments = append(arguments, "--config="+scheme+path)
	}
	slices.Sort(arguments) // the managed one is the last
	m := &member{name: name}
	env["COLLIE_STATE_DIR"] = filepath.Join(f.dir, name)
	env["COLLIE_OPAMP_ENDPOINT"], env["COLLIE_SOAK"] = "ws://"+f.opamp+"/v1/opamp", "2s"
	httpAddress := ""
	for variable, want := range map[string]struct {
		address *string
		port    int
	}{
		"COLLIE_OTLP_GRPC_PORT": {&m.otlp, 4317},
		"COLLIE_OTLP_HTTP_PORT": {&httpAddress, 4318},
		"COLLIE_HEALTH_PORT":    {&m.health, 13133},
		"COLLIE_METRICS_PORT":   {&m.metrics, 8888},
	} {
		p, err := port(want.port + offset)
		if err != nil {
			return nil, err
		}
		*want.address, env[variable] = address(p), strconv.Itoa(p)
	}
	if err := f.run(m, env, append([]string{f.cfg.Otelcol}, arguments...)...); err != nil {
		return nil, err
	}
	return m, m.awaitReady(ctx)
}

// run starts a member; its stdout is kept, its stderr goes to a log.
func (f *fleet) run(m *member, env map[string]string, argv ...string) error {
	m.stdout, m.logPath = &bytes.Buffer{}, filepath.Join(f.dir, m.name+".log")
	log, err := os.Create(m.logPath)
	if err != nil {
		return fmt.Errorf("log of the %s: %w", m.name, err)
	}
	defer func() { _ = log.Close() }()
	all := os.Environ()
	for k, v := range env {
		all = append(all, k+"="+v)
	}
	m.Process, err = process.Start(process.Options{Argv: argv, Env: all, Dir: f.dir, Stdout: m.stdout, Stderr: log})
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}

func (m *member) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.health, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-m.Exited():
			return m.died()
		case <-ctx.Done():
			return fmt.Errorf("the %s was not ready: %w", m.name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// died is how a member ended, with the last line of its log.
func (m *member) died() error {
	log, _ := os.ReadFile(m.logPath) // without a log the exit code has to do
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("the %s ended (exit: %v): %s", m.name, m.Wait(), lines[len(lines)-1])
}

// port is the preferred port, or when that is taken a free one.
func port(preferred int) (int, error) {
	l, err := net.Listen("tcp", address(preferred))
	if err != nil {
		l, err = net.Listen("tcp", address(0))
	}
	if err != nil {
		return 0, fmt.Errorf("find a free port on %s: %w", host, err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
