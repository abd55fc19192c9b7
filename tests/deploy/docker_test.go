package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// bridge is the address of the sandbox's own end of Docker's network, where a sink can be reached from containers.
const bridge = "10.88.0.1"

// docker is a daemon inside a sandbox.
type docker struct {
	t   *testing.T
	dir string
	cli string
}

// startDocker starts Debian's dockerd and waits until it answers.
func startDocker(t *testing.T, dir string) *docker {
	t.Helper()
	d := &docker{t: t, dir: dir, cli: tool(t, "docker")} // /usr/bin first: the one that belongs to the daemon
	log, err := os.Create(filepath.Join(dir, "dockerd.log"))
	require.NoError(t, err)
	// cgroup-parent has the sandbox's name, by which the process outside finds what is left.
	cmd := exec.Command(tool(t, "dockerd"), "--data-root", dir+"/docker", "--exec-root", dir+"/exec", "-H", d.host(), "-p", dir+"/dockerd.pid",
		"--bip", bridge+"/24", "--cgroup-parent", "/"+filepath.Base(dir))
	cmd.Env = []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin"}
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(20 * time.Second): // the end of the sandbox kills it
			t.Error("dockerd did not stop in 20 s")
		}
		_ = log.Close()
		if t.Failed() {
			content, _ := os.ReadFile(log.Name())
			lines := strings.Split(string(content), "\n")
			t.Logf("dockerd:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	harness.Await(t, time.Minute, "dockerd ready", func() (bool, any) {
		select {
		case err := <-ended:
			ended <- err
			require.FailNow(t, "dockerd ended", "%v", err)
		default:
		}
		out, err := d.try("version")
		return err == nil, out
	})
	return d
}

func (d *docker) host() string { return "unix://" + d.dir + "/docker.sock" }

// env has no home: no configuration, no credentials, no plugins of whoever runs the test.
func (d *docker) env() []string {
	return []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin", "DOCKER_HOST=" + d.host(), "DOCKER_CONFIG=" + d.dir + "/config", "HOME=" + d.dir}
}

func (d *docker) try(args ...string) (string, error) {
	return output(d.t, 2*time.Minute, d.env(), d.cli, args...)
}

func (d *docker) must(args ...string) string {
	d.t.Helper()
	return command(d.t, 2*time.Minute, d.env(), d.cli, args...)
}

// run starts a container of an image with the hardening that deploy/ has everywhere. A test that fails shows its log.
func (d *docker) run(name string, args ...string) {
	d.t.Helper()
	d.must(append([]string{"run", "-d", "--name", name, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}, args...)...)
	d.t.Cleanup(func() {
		if d.t.Failed() {
			log, _ := d.try("logs", "--tail", "30", name)
			d.t.Logf("container %s:\n%s", name, log)
		}
	})
}

func (d *docker) inspect(name, format string) string {
	d.t.Helper()
	return d.must("inspect", "--format", "{{"+format+"}}", name)
}

// awaitHealthy waits for Docker's own verdict, from the image's HEALTHCHECK.
func (d *docker) awaitHealthy(name string) {
	d.t.Helper()
	harness.Await(d.t, time.Minute, name+" healthy", func() (bool, any) {
		state := d.inspect(name, ".State.Status}} {{.State.Health.Status")
		require.Contains(d.t, state, "running", "container %s", name)
		return state == "running healthy", state
	})
}

// buildImage runs scripts/image.sh with storage inside the sandbox and loads what it makes; it returns the image's name.
func (d *docker) buildImage(version string) string {
	d.t.Helper()
	tool(d.t, "buildah")
	conf, archive := filepath.Join(d.dir, "storage.conf"), filepath.Join(d.dir, "image.tar")
	require.NoError(d.t, os.WriteFile(conf, []byte("[storage]\ndriver = \"vfs\"\ngraphroot = \""+d.dir+"/buildah\"\nrunroot = \""+d.dir+"/buildah-run\"\n"), 0o600))
	env := append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf, "OTELCOL="+otelcol(d.t))
	command(d.t, 3*time.Minute, env, filepath.Join(harness.Root(d.t), "scripts", "image.sh"), version, archive)
	image, ok := strings.CutPrefix(d.must("load", "--quiet", "--input", archive), "Loaded image: ")
	require.True(d.t, ok, image)
	require.NoError(d.t, os.Remove(archive))
	return image
}
