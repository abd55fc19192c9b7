package deploy_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// The image as a user runs it, on a real Docker daemon. The steps share the daemon and stand in order.
func TestImage(t *testing.T) {
	dir, inside := sandbox(t)
	if !inside {
		return
	}
	d := startDocker(t, dir)
	image := d.buildImage("1.2.3+test")
	require.Equal(t, "localhost/otelcol-collie:1.2.3-test", image, "a tag has no +")
	sink := startSink(t)
	d.run("gateway", "-v", "state:/var/lib/otelcol-collie", "-p", "127.0.0.1:4317:4317", "-p", "127.0.0.1:4318:4318",
		"-e", "COLLIE_BACKEND_ENDPOINT="+sink.GRPCEndpoint(), image)
	for _, step := range []struct {
		name string
		test func(t *testing.T, d *docker, image string)
	}{
		{"labels name version and source", labelsSayWhatItIs},
		{"HEALTHCHECK turns healthy", func(_ *testing.T, d *docker, _ string) { d.awaitHealthy("gateway") }},
		{"the healthcheck fails when nobody answers", healthcheckFails},
		{"user 10001 without privileges", hasNoPrivileges},
		{"only the state directory can be written", rootIsReadOnly},
		{"it holds every shipped configuration", holdsConfigurations},
		{"configurations validate in the image", configurationsValidate},
		{"spans arrive", func(t *testing.T, _ *docker, _ string) { spansArrive(t, sink) }},
		{"SIGTERM ends it with 0", stops},
		{"the queue survives in the volume", func(t *testing.T, d *docker, image string) { queueSurvives(t, d, image, sink) }},
		{"it runs without a volume", runsAlone},
		{"statedir makes a directory of root usable", statedirGives},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.test(t, d.with(t), image) }) {
			return
		}
	}
}

// with reports failures to a subtest.
func (d *docker) with(t *testing.T) *docker { return &docker{t: t, dir: d.dir, cli: d.cli} }

// startSink plays the backend, where containers can reach it.
func startSink(t *testing.T) *traffic.Sink {
	t.Helper()
	sink, err := traffic.NewSink(traffic.SinkConfig{Listen: bridge + ":5317"})
	require.NoError(t, err)
	require.NoError(t, sink.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, sink.Shutdown(ctx))
	})
	return sink
}

// load sends traces and requires that all of them were acknowledged.
func load(t *testing.T, cfg traffic.LoadConfig) traffic.LoadSummary {
	t.Helper()
	cfg.Retry = true
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sum, err := traffic.RunLoad(ctx, cfg)
	require.NoError(t, err)
	require.Equal(t, sum.Sent, sum.Acknowledged, "%+v", sum)
	require.Positive(t, sum.Sent)
	return sum
}

// awaitSpans waits until everything that was acknowledged is at the sink.
func awaitSpans(t *testing.T, sink *traffic.Sink, sum traffic.LoadSummary) {
	t.Helper()
	harness.Await(t, time.Minute, "all spans at the sink", func() (bool, any) {
		missing := traffic.Missing(sum.AcknowledgedSet(), sink.Received(sum.Run)).GetCardinality()
		return missing == 0, missing
	})
}

func labelsSayWhatItIs(t *testing.T, d *docker, image string) {
	for label, want := range map[string]string{
		"version": "1.2.3+test", "title": "otelcol-collie", "source": "https://github.com/collie-otel/collie",
	} {
		require.Equal(t, want, d.inspect(image, `index .Config.Labels "org.opencontainers.image.`+label+`"`), label)
	}
}

func healthcheckFails(t *testing.T, d *docker, _ string) {
	out, err := d.try("exec", "gateway", "/healthcheck", "127.0.0.1:1")
	require.Error(t, err)
	require.Contains(t, out, "healthcheck: 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
	require.Empty(t, d.must("exec", "gateway", "/healthcheck"), "healthy is silent")
}

func hasNoPrivileges(t *testing.T, d *docker, _ string) {
	status, err := os.ReadFile("/proc/" + d.inspect("gateway", ".State.Pid") + "/status")
	require.NoError(t, err)
	for _, want := range []string{
		"Uid:\t10001\t10001\t10001\t10001", "Gid:\t10001\t10001\t10001\t10001", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1",
	} {
		require.Contains(t, string(status), want)
	}
}

// rootOf leads into a container's own mounts.
func rootOf(d *docker, name string) string {
	return "/proc/" + d.inspect(name, ".State.Pid") + "/root"
}

func rootIsReadOnly(t *testing.T, d *docker, _ string) {
	root := rootOf(d, "gateway")
	for _, dir := range []string{"", "/etc", "/etc/otelcol-collie", "/var/lib"} {
		require.ErrorIs(t, os.WriteFile(root+dir+"/probe", nil, 0o600), syscall.EROFS, "%q", dir)
	}
	state := root + "/var/lib/otelcol-collie"
	require.NoError(t, os.WriteFile(state+"/probe", nil, 0o600), "the volume")
	require.NoError(t, os.Remove(state+"/probe"))
	for _, path := range []string{state, state + "/queue"} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, uint32(10001), info.Sys().(*syscall.Stat_t).Uid, "a volume takes the owner of the image's directory: %s", path)
	}
	for _, path := range []string{root + "/var", root + "/var/lib", root + "/otelcol-collie", root + "/etc/otelcol-collie/config.yaml"} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Zero(t, info.Sys().(*syscall.Stat_t).Uid, "the Collector must not own %s", path)
	}
	certificates, err := os.ReadFile(root + "/etc/ssl/certs/ca-certificates.crt")
	require.NoError(t, err)
	require.Contains(t, string(certificates), "BEGIN CERTIFICATE")
}

func holdsConfigurations(t *testing.T, d *docker, _ string) {
	shipped := os.DirFS(repoFile(t, "configs"))
	inside := os.DirFS(rootOf(d, "gateway") + "/etc/otelcol-collie")
	require.NoError(t, fs.WalkDir(shipped, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" || path == "kustomization.yaml" {
			return err
		}
		want, err := fs.ReadFile(shipped, path)
		require.NoError(t, err)
		got, err := fs.ReadFile(inside, "configs/"+path)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), path)
		return nil
	}))
	gateway, err := fs.ReadFile(shipped, "gateway.yaml")
	require.NoError(t, err)
	byDefault, err := fs.ReadFile(inside, "config.yaml")
	require.NoError(t, err)
	require.Equal(t, string(gateway), string(byDefault))
}

func configurationsValidate(t *testing.T, d *docker, image string) {
	for _, configs := range [][]string{
		{"agent.yaml"},
		{"agent.yaml", "agent-fast.yaml"},
		{"agent.yaml", "agent-logs.yaml"},
		{"agent.yaml", "agent-tiered.yaml"},
		{"gateway.yaml"},
		{"single-gateway.yaml"},
		{"quickstart.yaml"},
		{"tiered/balancer.yaml"},
		{"tiered/balancer.yaml", "tiered/balancer-dns.yaml"},
		{"tiered/sampler.yaml"},
	} {
		args := []string{"run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", image, "validate"}
		for _, config := range configs {
			args = append(args, "--config=/etc/otelcol-collie/configs/"+config)
		}
		d.must(args...)
	}
	out, err := d.try("run", "--rm", "--network", "none", image, "validate", "--config=/etc/otelcol-collie/configs/nothing.yaml")
	require.Error(t, err)
	require.Contains(t, out, "no such file")
}

func spansArrive(t *testing.T, sink *traffic.Sink) {
	for protocol, port := range map[string]string{traffic.ProtocolGRPC: "4317", traffic.ProtocolHTTP: "4318"} {
		sum := load(t, traffic.LoadConfig{Endpoints: []string{"127.0.0.1:" + port}, Protocol: protocol, Traces: 200})
		require.Empty(t, sum.Errors, protocol)
		awaitSpans(t, sink, sum)
	}
}

func stops(t *testing.T, d *docker, _ string) {
	d.must("stop", "--time", "20", "gateway") // SIGKILL, and so 137, after 20 s
	require.Equal(t, "0 false", d.inspect("gateway", ".State.ExitCode}} {{.State.OOMKilled"))
	log := d.must("logs", "gateway")
	require.Contains(t, log, "Shutdown complete.")
	for _, bad := range []string{"panic:", "DATA RACE"} {
		require.NotContains(t, log, bad)
	}
}

// queueSurvives acknowledges spans while the backend is away, removes the container, and finds them in a new one.
func queueSurvives(t *testing.T, d *docker, image string, sink *traffic.Sink) {
	d.must("rm", "gateway")
	args := []string{"-v", "state:/var/lib/otelcol-collie", "-p", "127.0.0.1:4317:4317", "-e"}
	d.run("before", append(args, "COLLIE_BACKEND_ENDPOINT="+bridge+":1", image)...)
	sum := load(t, traffic.LoadConfig{Endpoints: []string{"127.0.0.1:4317"}, Traces: 50})
	d.must("stop", "--time", "20", "before")
	d.must("rm", "before")
	require.Zero(t, sink.Received(sum.Run).GetCardinality())
	d.run("after", append(args, "COLLIE_BACKEND_ENDPOINT="+sink.GRPCEndpoint(), image)...)
	awaitSpans(t, sink, sum)
	d.must("rm", "--force", "after")
}

func runsAlone(t *testing.T, d *docker, image string) {
	d.run("alone", image)
	awaitAnswer(t, d, "alone")
	d.must("rm", "--force", "--volumes", "alone")
}

// awaitAnswer does not wait for the interval of HEALTHCHECK.
func awaitAnswer(t *testing.T, d *docker, name string) {
	t.Helper()
	harness.Await(t, 30*time.Second, name+" healthy", func() (bool, any) {
		out, err := d.try("exec", name, "/healthcheck")
		return err == nil, out
	})
}

// What the init container of deploy/kubernetes/agent does, with the same rights.
func statedirGives(t *testing.T, d *docker, image string) {
	state := filepath.Join(d.dir, "hostpath")
	require.NoError(t, os.Mkdir(state, 0o755))
	mount := state + ":/var/lib/otelcol-collie"
	agent := []string{"-v", mount, "-v", "/:/hostfs:ro", "-e", "COLLIE_HOST_ROOT=/hostfs", image, "--config=/etc/otelcol-collie/configs/agent.yaml"}
	out, err := d.try(append([]string{"run", "--rm", "--read-only"}, agent...)...)
	require.Error(t, err, "a directory of root cannot be written: nothing to prove")
	require.Contains(t, out, "permission denied")

	for range 2 { // the second time there is nothing to do
		d.must("run", "--rm", "--read-only", "--user", "0:0", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--security-opt", "no-new-privileges",
			"--network", "none", "-v", mount, "--entrypoint", "/statedir", image, "/var/lib/otelcol-collie")
	}
	info, err := os.Stat(state)
	require.NoError(t, err)
	require.Equal(t, uint32(10001), info.Sys().(*syscall.Stat_t).Uid)
	require.Equal(t, os.FileMode(0o750), info.Mode().Perm())
	d.run("agent", agent...)
	awaitAnswer(t, d, "agent")
	require.NotContains(t, strings.ToLower(d.must("logs", "agent")), "error scraping metrics", "host_metrics reads /hostfs without privileges")
	d.must("rm", "--force", "agent")
}
