package deploy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// pool is HAProxy with the shipped configuration before gateways with theirs. The members have one address of loopback
// each and the same ports, as containers have.
type pool struct {
	t       *testing.T
	names   *nameServer
	sink    *traffic.Sink
	members []*member
	front   ports // HAProxy's
	haproxy *harness.Process
}

// ports are those of one address.
type ports struct{ grpc, http, health, metrics int }

// member is one gateway; its state directory stays through restarts.
type member struct {
	address string
	env     []string
	run     *harness.Process
}

func freePorts(t *testing.T, host string) ports {
	t.Helper()
	return ports{harness.FreePort(t, host), harness.FreePort(t, host), harness.FreePort(t, host), harness.FreePort(t, host)}
}

func startPool(t *testing.T, size int) *pool {
	t.Helper()
	p := &pool{t: t, names: startNameServer(t, "gateway.test"), front: freePorts(t, "127.0.0.1")}
	var err error
	p.sink, err = traffic.NewSink(traffic.SinkConfig{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, p.sink.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, p.sink.Shutdown(context.Background())) })

	var addresses []string
	for i := range size {
		m := &member{address: fmt.Sprintf("127.0.1.%d", i+1)}
		m.env = append(p.front.env(m.address), fmt.Sprintf("COLLIE_METRICS_PORT=%d", p.front.metrics), "COLLIE_STATE_DIR="+t.TempDir(),
			"COLLIE_BACKEND_ENDPOINT="+p.sink.GRPCEndpoint(), "COLLIE_RETRY_MAX_INTERVAL=1s", "GOMEMLIMIT=512MiB")
		p.members = append(p.members, m)
		addresses = append(addresses, m.address)
		p.start(m)
	}
	p.names.set(addresses...)
	p.haproxy = harness.StartProcess(t, "haproxy", append(p.front.env("127.0.0.1"), fmt.Sprintf("COLLIE_STATS_PORT=%d", p.front.metrics), "COLLIE_POOL=gateway.test",
		"COLLIE_DNS="+p.names.conn.LocalAddr().String()), tool(t, "haproxy"), "-db", "-f", repoFile(t, "deploy", "compose", "haproxy.cfg"))
	p.awaitMembers(size)
	return p
}

// env is what HAProxy and its members agree on.
func (p ports) env(listen string) []string {
	return []string{
		"COLLIE_LISTEN=" + listen, fmt.Sprintf("COLLIE_OTLP_GRPC_PORT=%d", p.grpc), fmt.Sprintf("COLLIE_OTLP_HTTP_PORT=%d", p.http),
		fmt.Sprintf("COLLIE_HEALTH_PORT=%d", p.health),
	}
}

// start starts a member, again when it has ended, and waits until it is ready.
func (p *pool) start(m *member) {
	p.t.Helper()
	m.run = harness.StartProcess(p.t, "gateway "+m.address, m.env, otelcol(p.t), "--config="+repoFile(p.t, "configs", "gateway.yaml"))
	harness.Await(p.t, time.Minute, "gateway "+m.address+" ready", func() (bool, any) {
		m.run.MustRun()
		_, err := get(fmt.Sprintf("http://%s:%d/", m.address, p.front.health))
		return err == nil, err
	})
}

// awaitMembers waits until HAProxy has so many members that it sends to.
func (p *pool) awaitMembers(want int) {
	p.t.Helper()
	harness.Await(p.t, 30*time.Second, fmt.Sprintf("%d members of the pool", want), func() (bool, any) {
		p.haproxy.MustRun()
		grpc := metric(p.t, p.front.metrics, "127.0.0.1", `haproxy_backend_active_servers\{proxy="otlp_grpc"\}`)
		http := metric(p.t, p.front.metrics, "127.0.0.1", `haproxy_backend_active_servers\{proxy="otlp_http"\}`)
		return grpc == float64(want) && http == float64(want), []float64{grpc, http}
	})
}

// accepted is how many spans a member has taken since it was started.
func (p *pool) accepted(m *member) float64 {
	p.t.Helper()
	return metric(p.t, p.front.metrics, m.address, `otelcol_receiver_accepted_spans[a-z_]*\{[^}]*\}`)
}

// metric adds up the samples whose name and labels match; it is -1 when nobody answers.
func metric(t *testing.T, port int, host, pattern string) float64 {
	t.Helper()
	body, err := get(fmt.Sprintf("http://%s:%d/metrics", host, port))
	if err != nil {
		return -1
	}
	var sum float64
	for _, m := range regexp.MustCompile(`(?m)^`+pattern+` (\S+)$`).FindAllStringSubmatch(body, -1) {
		value, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		sum += value
	}
	return sum
}

// get is the body of a 200.
func get(url string) (string, error) {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(body), err
}

// endpoint is HAProxy's.
func (p *pool) endpoint(protocol string) string {
	if protocol == traffic.ProtocolHTTP {
		return fmt.Sprintf("127.0.0.1:%d", p.front.http)
	}
	return fmt.Sprintf("127.0.0.1:%d", p.front.grpc)
}

// One client connection, and yet each member gets its share: it is requests that are balanced.
func TestHAProxySpreadsRequests(t *testing.T) {
	t.Parallel()
	p := startPool(t, 3)
	for _, protocol := range []string{traffic.ProtocolGRPC, traffic.ProtocolHTTP} {
		t.Run(protocol, func(t *testing.T) {
			before := make([]float64, len(p.members))
			for i, m := range p.members {
				before[i] = p.accepted(m)
			}
			sum := load(t, traffic.LoadConfig{Endpoints: []string{p.endpoint(protocol)}, Protocol: protocol, Traces: 600, BatchSize: 20})
			require.Empty(t, sum.Errors)
			for i, m := range p.members {
				share := (p.accepted(m) - before[i]) / float64(sum.Acknowledged)
				require.InDelta(t, 1.0/3, share, 0.1, "share of %s", m.address)
			}
			awaitSpans(t, p.sink, sum)
		})
	}
}

// A member is killed under load: every request is acknowledged in the end, and once HAProxy has seen it, none fails at
// all. What the dead one had acknowledged arrives when it is back.
func TestHAProxySurvivesADeadMember(t *testing.T) {
	t.Parallel()
	p := startPool(t, 3)
	victim := p.members[1]
	inTheMiddle := func(traffic.Progress) { _ = victim.run.Kill() } // once is enough, and more do no harm
	for _, protocol := range []string{traffic.ProtocolGRPC, traffic.ProtocolHTTP} {
		sum := load(t, traffic.LoadConfig{Endpoints: []string{p.endpoint(protocol)}, Protocol: protocol, Duration: 3 * time.Second, Rate: 5000, OnProgress: inTheMiddle})
		t.Logf("%s: %d requests, of which these failed and were repeated: %v", protocol, sum.Requests, sum.Errors)
		defer awaitSpans(t, p.sink, sum)
	}
	p.awaitMembers(2)
	calm := load(t, traffic.LoadConfig{Endpoints: []string{p.endpoint(traffic.ProtocolGRPC)}, Traces: 200})
	require.Empty(t, calm.Errors, "the dead member is known by now")
	p.start(victim)
	p.awaitMembers(3)
}

// A member that is stopped in order, and one that leaves the name, cost no request.
func TestHAProxyFollowsThePool(t *testing.T) {
	t.Parallel()
	p := startPool(t, 3)
	p.names.set(p.members[0].address, p.members[1].address)
	p.awaitMembers(2)
	p.members[2].run.MustStop()

	inTheMiddle := func(traffic.Progress) { p.members[1].run.Signal(syscall.SIGTERM) }
	sum := load(t, traffic.LoadConfig{
		Endpoints: []string{p.endpoint(traffic.ProtocolGRPC)}, Duration: 3 * time.Second, Rate: 5000, OnProgress: inTheMiddle,
	})
	p.members[1].run.MustStop()
	t.Logf("%d requests, of which these failed and were repeated: %v", sum.Requests, sum.Errors)

	p.names.set(p.members[0].address, p.members[1].address, p.members[2].address)
	p.start(p.members[1])
	p.start(p.members[2])
	p.awaitMembers(3)
	awaitSpans(t, p.sink, sum)
}
