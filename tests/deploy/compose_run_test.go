package deploy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// composeVariable names Docker Compose: set it to use another than the one of composecli.
const composeVariable = "COLLIE_TEST_COMPOSE"

// buildCompose makes Docker Compose from source, which Debian 12 does not have: more than a minute the first time, and
// what Go needs to see that nothing has changed later on.
func buildCompose(t *testing.T) {
	t.Helper()
	if os.Getenv(composeVariable) != "" {
		return
	}
	path := repoFile(t, "tests", ".work", "docker-compose")
	env := append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	command(t, 20*time.Minute, env, "go", "build", "-C", repoFile(t, "tests", "deploy", "composecli"), "-trimpath", "-ldflags", "-s -w",
		"-o", path, "github.com/docker/compose/v5/cmd")
	t.Setenv(composeVariable, path)
}

// compose is one of the shipped files, running.
type compose struct {
	*docker
	name string // of the file and, behind "collie-", of the project
	vars []string
}

// haproxyImage makes an image of Debian's HAProxy: the program and its libraries.
func (d *docker) haproxyImage() string {
	d.t.Helper()
	const image = "localhost/haproxy:test"
	program, archive := tool(d.t, "haproxy"), filepath.Join(d.dir, "haproxy.tar")
	files := []string{program}
	for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(command(d.t, time.Minute, nil, "/usr/bin/ldd", program), -1) {
		files = append(files, m[1])
	}
	command(d.t, time.Minute, d.env(), "tar", append([]string{"--create", "--dereference", "--absolute-names", "--file", archive}, files...)...)
	d.must("import", "--change", `ENTRYPOINT ["`+program+`"]`, "--change", `CMD ["-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]`, archive, image)
	return image
}

func (c *compose) args(args ...string) []string {
	return append([]string{"--file", repoFile(c.t, "deploy", "compose", c.name+".yaml")}, args...)
}

// run is `docker compose -f FILE ARGS`.
func (c *compose) run(args ...string) string {
	c.t.Helper()
	return command(c.t, 2*time.Minute, append(c.env(), c.vars...), os.Getenv(composeVariable), c.args(args...)...)
}

// up starts the file as its first lines tell the user to.
func up(t *testing.T, d *docker, name string, vars ...string) *compose {
	t.Helper()
	c := &compose{docker: d.with(t), name: name, vars: vars}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := output(t, time.Minute, append(c.env(), c.vars...), os.Getenv(composeVariable), c.args("logs", "--tail", "8")...)
			t.Logf("compose:\n%s", log)
		}
	})
	c.run("up", "--detach", "--wait", "--quiet-pull")
	return c
}

// containers are the ids of all containers, ended ones included.
func (c *compose) containers() []string {
	c.t.Helper()
	return strings.Fields(c.run("ps", "--all", "--quiet"))
}

// container is the name that Compose gives to the first container of a service.
func (c *compose) container(service string) string { return "collie-" + c.name + "-" + service + "-1" }

// address is a container's, which the sandbox can reach.
func (c *compose) address(service string) string {
	c.t.Helper()
	return c.inspect(c.container(service), "range .NetworkSettings.Networks}}{{.IPAddress}}{{end")
}

// requireCleanStop stops everything and looks at how it ended.
func (c *compose) requireCleanStop() {
	c.t.Helper()
	c.run("stop")
	for _, id := range c.containers() {
		state := c.inspect(id, ".Name}} {{.State.ExitCode}} {{.State.OOMKilled")
		if strings.Contains(state, "haproxy") {
			continue // ends with 128 + the signal
		}
		require.Regexp(c.t, ` 0 false$`, state)
		require.NotContains(c.t, c.must("logs", id), "panic:")
	}
	c.run("down", "--volumes")
	require.Empty(c.t, c.containers())
}

// Both files as a user starts them, with a real Docker and a real Compose.
func TestCompose(t *testing.T) {
	if os.Getenv(sandboxVariable) == "" {
		buildCompose(t) // the sandbox has no network
	}
	dir, inside := sandbox(t)
	if !inside {
		return
	}
	d := startDocker(t, dir)
	sink := startSink(t)
	vars := []string{"COLLIE_IMAGE=" + d.buildImage("test"), "HAPROXY_IMAGE=" + d.haproxyImage(), "COLLIE_BACKEND_ENDPOINT=" + sink.GRPCEndpoint()}
	t.Run("agent-gateway", func(t *testing.T) { agentGateway(t, up(t, d, "agent-gateway", vars...), sink) })
	t.Run("tiered", func(t *testing.T) {
		tiered(t, up(t, d, "tiered", append(vars, "COLLIE_DECISION_WAIT=3s", "COLLIE_BASELINE_PERCENT=0")...), sink)
	})
}

// agentGateway kills a gateway while traffic flows: nothing is lost.
func agentGateway(t *testing.T, c *compose, sink *traffic.Sink) {
	sums := []traffic.LoadSummary{
		load(t, traffic.LoadConfig{Endpoints: []string{"127.0.0.1:4317"}, Traces: 200}),
		load(t, traffic.LoadConfig{Endpoints: []string{"127.0.0.1:4318"}, Protocol: traffic.ProtocolHTTP, Traces: 200}),
	}
	c.must("kill", c.container("gateway-2"))
	sums = append(sums, load(t, traffic.LoadConfig{Endpoints: []string{"127.0.0.1:4317"}, Duration: 3 * time.Second, Rate: 2000}))
	c.run("up", "--detach", "--wait", "--quiet-pull") // and its queue is there again
	for _, sum := range sums {
		awaitSpans(t, sink, sum)
	}
	harness.Await(t, time.Minute, "metrics of the host", func() (bool, any) {
		_, ok := sink.Summary().Metrics["system.memory.usage"]
		return ok, len(sink.Summary().Metrics)
	})
	c.requireCleanStop()
}

// tiered gets spans of one trace in different requests, over different balancers: what failed or was slow arrives whole,
// and nothing else arrives.
func tiered(t *testing.T, c *compose, sink *traffic.Sink) {
	sink.Reset()
	sum := load(t, traffic.LoadConfig{Endpoints: []string{"127.0.0.1:4317"}, Traces: 600, SlowRatio: 0.2, ErrorRatio: 0.1})
	want := map[string]traffic.TraceCount{}
	for _, kind := range []string{traffic.KindSlow, traffic.KindError} {
		want[kind] = traffic.TraceCount{Whole: sum.Traces[kind]}
	}
	harness.Await(t, time.Minute, "slow and failed traces", func() (bool, any) {
		got := sink.Summary().Traces
		return fmt.Sprint(got) == fmt.Sprint(want), got
	})
	for _, sampler := range []string{"sampler-1", "sampler-2", "sampler-3"} {
		require.Positive(t, metric(t, 8888, c.address(sampler), `otelcol_receiver_accepted_spans[a-z_]*\{[^}]*\}`), sampler)
	}
	c.requireCleanStop()
}
