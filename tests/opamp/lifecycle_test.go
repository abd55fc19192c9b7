package opamp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// Fifty reloads by SIGHUP under load: one connection, one instance UID, no gap in the sequence, nothing left behind.
func TestFiftyReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"ws", "http"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, transport)
			profile := e.withPprof()
			first, _ := e.startSettled()
			ctx, cancel := context.WithCancel(t.Context())
			loaded := make(chan error, 1)
			go func() {
				_, err := traffic.RunLoad(ctx, traffic.LoadConfig{Endpoints: []string{e.collector.GRPC()}, Rate: 1000, Retry: true, Reconnect: 50 * time.Millisecond})
				loaded <- err
			}()
			reload := func(i int) {
				e.config["exporters"] = map[string]any{"debug": map[string]any{"sampling_initial": 100 + i}}
				e.write()
				ready := countLines(e.collector.Log(), "Everything is ready.")
				e.collector.Signal(syscall.SIGHUP)
				harness.Await(t, 60*time.Second, "the reload", func() (bool, any) {
					return countLines(e.collector.Log(), "Everything is ready.") > ready, i
				})
				e.server.await(0, "the new configuration", func(m received) bool {
					return strings.Contains(string(m.EffectiveConfig.GetConfigMap().GetConfigMap()[""].GetBody()), fmt.Sprintf("sampling_initial: %d\n", 100+i))
				})
			}
			for i := range 5 { // connections and caches that come with the first ones
				reload(i)
			}
			before, goroutines := descriptors(t, e.collector.PID()), goroutinesOf(t, profile)
			for i := 5; i < 50; i++ {
				reload(i)
			}
			cancel()
			require.NoError(t, <-loaded)
			requireOneSession(t, e, first, len(e.server.all()))
			harness.Await(t, 20*time.Second, "no more goroutines and files than before", func() (bool, any) {
				files, routines := descriptors(t, e.collector.PID()), goroutinesOf(t, profile)
				return files <= before+5 && routines <= goroutines+5, []int{before, files, goroutines, routines}
			})
			if transport == "ws" {
				require.Equal(t, 1, e.server.connected())
			}
		})
	}
}

// withPprof adds the pprof extension, and returns its address.
func (e *env) withPprof() string {
	e.t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(e.t, "127.0.0.1"))
	e.config["extensions"].(map[string]any)["pprof"] = map[string]any{"endpoint": address}
	e.config["service"].(map[string]any)["extensions"] = []string{"health_check", "opamp", "pprof"}
	e.write()
	return address
}

func goroutinesOf(t *testing.T, pprof string) int {
	t.Helper()
	resp, err := http.Get("http://" + pprof + "/debug/pprof/goroutine?debug=1")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var n int
	_, err = fmt.Fscanf(resp.Body, "goroutine profile: total %d", &n)
	require.NoError(t, err)
	return n
}

// descriptors counts the open files of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	return len(files)
}

// A server on opamp-go's own library understands the agent, over both transports.
func TestInteroperabilityWithOpAMPGo(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"ws", "http"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			messages := make(chan *protobufs.AgentToServer, 256)
			handler, withConn, err := server.New(nil).Attach(server.Settings{EnableCompression: true, Callbacks: types.Callbacks{
				OnConnecting: func(*http.Request) types.ConnectionResponse {
					return types.ConnectionResponse{Accept: true, ConnectionCallbacks: types.ConnectionCallbacks{
						OnMessage: func(_ context.Context, _ types.Connection, m *protobufs.AgentToServer) *protobufs.ServerToAgent {
							select {
							case messages <- m:
							default:
							}
							answer := &protobufs.ServerToAgent{InstanceUid: m.InstanceUid, Capabilities: serverCapabilities}
							if m.SequenceNum == 3 {
								answer.Flags = fullState
							}
							return answer
						},
					}}
				},
			}})
			require.NoError(t, err)
			s := httptest.NewUnstartedServer(http.HandlerFunc(handler))
			s.Config.ConnContext = withConn
			s.Start()
			t.Cleanup(s.Close)

			e := newEnv(t, transport)
			e.edit(func(_, connection map[string]any) {
				connection["endpoint"] = transport + strings.TrimPrefix(s.URL, "http") + "/v1/opamp"
			})
			e.collector.Start()
			next := func(what string, fits func(*protobufs.AgentToServer) bool) {
				t.Helper()
				for limit := time.After(20 * time.Second); ; {
					select {
					case m := <-messages:
						if fits(m) {
							return
						}
					case <-limit:
						t.Fatalf("%s: not within 20 s", what)
					}
				}
			}
			healthy := false // on a busy machine the first report may come when all runs
			next("a full first report", func(m *protobufs.AgentToServer) bool {
				healthy = m.Health.GetHealthy()
				return isFull(received{AgentToServer: m})
			})
			if !healthy {
				next("a healthy agent", func(m *protobufs.AgentToServer) bool { return m.Health.GetHealthy() })
			}
			e.collector.Stop()
			next("goodbye", func(m *protobufs.AgentToServer) bool { return m.AgentDisconnect != nil })
		})
	}
}

// A parent that is gone at the start, or goes later, ends the Collector with an exit code that says so.
func TestParentGone(t *testing.T) {
	t.Parallel()
	t.Run("at the start", func(t *testing.T) {
		t.Parallel()
		gone := exec.Command("true")
		require.NoError(t, gone.Run())
		e := newEnv(t, "ws")
		e.edit(func(opamp, _ map[string]any) { opamp["ppid"] = gone.Process.Pid })
		e.collector.Launch()
		require.Error(t, e.collector.Wait(20*time.Second))
		require.Contains(t, e.collector.Log(), "the parent process is gone")
	})
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		parent := exec.Command("sleep", "600")
		require.NoError(t, parent.Start())
		e := newEnv(t, "ws")
		e.edit(func(opamp, _ map[string]any) {
			opamp["ppid"], opamp["ppid_poll_interval"] = parent.Process.Pid, "100ms"
		})
		e.startSettled()
		require.NoError(t, parent.Process.Kill())
		_ = parent.Wait()
		require.Error(t, e.collector.Wait(20*time.Second))
		e.server.await(0, "goodbye", func(m received) bool { return m.AgentDisconnect != nil })
	})
}

func TestOwnMetrics(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "ws")
	e.startSettled()
	resp, err := http.Get("http://" + e.collector.Metrics() + "/metrics")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	var text bytes.Buffer
	_, err = text.ReadFrom(resp.Body)
	require.NoError(t, err)
	require.Regexp(t, `(?m)^otelcol_opamp_connected(\{[^}]*\})? 1$`, text.String())
	require.Regexp(t, `(?m)^otelcol_opamp_messages_total\{[^}]*direction="sent"[^}]*\} [1-9]`, text.String())
	require.Regexp(t, `(?m)^otelcol_opamp_messages_total\{[^}]*direction="received"[^}]*\} [1-9]`, text.String())
}

// A connection that is half-open, as behind a firewall that has forgotten it, is noticed and replaced within a minute.
func TestHalfOpenConnection(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "ws")
	proxy := newBlackHole(t, e.server.address())
	e.edit(func(_, connection map[string]any) { connection["endpoint"] = "ws://" + proxy.address() + "/v1/opamp" })
	e.startSettled()
	proxy.swallow()
	harness.Await(t, 75*time.Second, "another connection", func() (bool, any) { return e.server.connected() == 2, e.server.connected() })
}

// blackHole forwards TCP, until it is told to swallow what the connections of that moment carry.
type blackHole struct {
	listener net.Listener
	swallows chan struct{}
}

func newBlackHole(t *testing.T, target string) *blackHole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	b := &blackHole{listener: l, swallows: make(chan struct{})}
	first := true
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			t.Cleanup(func() { _ = client.Close(); _ = upstream.Close() })
			swallows := b.swallows
			if !first {
				swallows = nil
			}
			first = false
			go b.copy(client, upstream, swallows)
			go b.copy(upstream, client, swallows)
		}
	}()
	return b
}

func (b *blackHole) copy(from, to net.Conn, swallows chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-swallows:
			continue // neither data nor the end
		default:
		}
		if n > 0 {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (b *blackHole) address() string { return b.listener.Addr().String() }
func (b *blackHole) swallow()        { close(b.swallows) }

// What upstream's extension is configured with works unchanged.
func TestUpstreamConfiguration(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "ws")
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("from-the-extension"), 0o600))
	extensions := e.config["extensions"].(map[string]any)
	extensions["bearertokenauth"] = map[string]any{"filename": token}
	extensions["opamp"] = map[string]any{
		"server": map[string]any{"ws": map[string]any{
			"endpoint": "ws://" + e.server.address() + "/v1/opamp", "headers": map[string]any{"X-Team": "sre"},
			"tls": map[string]any{"insecure": true}, "auth": "bearertokenauth",
		}},
		"instance_uid":      "01ARZ3NDEKTSV4RRFFQ69G5FAV",
		"capabilities":      map[string]any{"reports_effective_config": true, "reports_health": true, "reports_available_components": true, "accepts_restart_command": false},
		"agent_description": map[string]any{"non_identifying_attributes": map[string]any{"team": "sre"}, "include_resource_attributes": true},
		"ppid":              os.Getpid(), "ppid_poll_interval": "5s",
	}
	e.config["service"].(map[string]any)["extensions"] = []string{"health_check", "opamp", "bearertokenauth"}
	e.write()
	first := e.start()
	require.Equal(t, "01563e3a-b5d3-d676-4c61-efb99302bd5b", uidOf(first).String())
	require.Equal(t, "Bearer from-the-extension", first.header.Get("Authorization"))
	require.Equal(t, "sre", first.header.Get("X-Team"))
	require.Equal(t, "sre", attributes(first.AgentDescription.NonIdentifyingAttributes)["team"])
}

// For two minutes the server comes and goes every second. Beside a Collector whose server stays, that costs less than 1 % of
// a core, no memory, and not one span.
func TestFlappingServer(t *testing.T) {
	t.Parallel()
	const length = 2 * time.Minute
	flapping, steady := newEnv(t, "ws"), newEnv(t, "ws")
	flapping.startSettled()
	steady.startSettled()

	type usage struct {
		cpu time.Duration
		rss int64
	}
	measure := func(e *env) usage { return usage{e.collector.CPU(), e.collector.RSS()} }
	load := func(e *env, d time.Duration) traffic.LoadSummary {
		sum, err := traffic.RunLoad(t.Context(), traffic.LoadConfig{Endpoints: []string{e.collector.GRPC()}, Rate: 200, Duration: d})
		require.NoError(t, err)
		return sum
	}
	load(flapping, 5*time.Second)
	load(steady, 5*time.Second)
	beforeA, beforeB := measure(flapping), measure(steady)

	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for away := true; ; away = !away {
			flapping.server.flap(away)
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	sums := make(chan traffic.LoadSummary, 2)
	for _, e := range []*env{flapping, steady} {
		go func() { sums <- load(e, length) }()
	}
	for range 2 {
		sum := <-sums
		require.Equal(t, sum.Sent, sum.Acknowledged, "%v", sum.Errors)
		require.InDelta(t, 200*length.Seconds(), sum.Sent, 0.05*200*length.Seconds())
	}
	close(stop)
	<-stopped
	afterA, afterB := measure(flapping), measure(steady)
	extra := (afterA.cpu - beforeA.cpu) - (afterB.cpu - beforeB.cpu)
	t.Logf("CPU %v with a flapping server, %v with a steady one; memory %d and %d MB; %d attempts to connect",
		afterA.cpu-beforeA.cpu, afterB.cpu-beforeB.cpu, afterA.rss>>20, afterB.rss>>20, len(flapping.server.tried()))
	require.Less(t, extra, length/100)
	require.Less(t, (afterA.rss-beforeA.rss)-(afterB.rss-beforeB.rss), int64(16<<20), "memory beside that of the load itself")
	require.Greater(t, len(flapping.server.tried()), 3)
}

// After a partial reload, which restarts the changed receivers only and tells extensions nothing, the effective configuration follows.
func TestPartialReload(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "ws")
	e.collector = harness.New(t, harness.Options{
		Configs: []string{"quickstart.yaml", e.overlay}, Args: []string{"--feature-gates=service.partialReload"},
		Env: map[string]string{"APP_TOKEN": "s3cr3t-value"},
	})
	first, next := e.startSettled()
	e.config["receivers"] = map[string]any{"otlp": map[string]any{"protocols": map[string]any{"http": map[string]any{
		"max_request_body_size": 1234567, "response_headers": map[string]any{"x-token": "${env:APP_TOKEN}"},
	}}}}
	e.write()
	e.collector.Signal(syscall.SIGHUP)
	m, next := e.server.await(next, "the new configuration", func(m received) bool { return m.EffectiveConfig != nil })
	body := string(m.EffectiveConfig.ConfigMap.ConfigMap[""].Body)
	require.Contains(t, body, "max_request_body_size: 1234567")
	require.NotContains(t, body, "s3cr3t-value")
	require.Equal(t, 1, countLines(e.collector.Log(), "Everything is ready."), "it was a partial reload")
	requireOneSession(t, e, first, next)
}

// wss and https with a private CA and a client certificate: the server knows the agent by it, and a server that nobody has
// vouched for hears nothing.
func TestMutualTLS(t *testing.T) {
	t.Parallel()
	cert, key := harness.SelfSigned(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	pem, err := os.ReadFile(cert)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	for transport, secure := range map[string]string{"ws": "wss", "http": "https"} {
		t.Run(secure, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, transport)
			front := httptest.NewUnstartedServer(http.HandlerFunc(e.server.serve))
			front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
			front.StartTLS()
			t.Cleanup(front.Close)
			endpoint := secure + strings.TrimPrefix(front.URL, "https") + "/v1/opamp"

			e.edit(func(_, c map[string]any) { c["endpoint"] = endpoint })
			e.collector.Start()
			harness.Await(t, 20*time.Second, "the refusal in the log", func() (bool, any) {
				return strings.Contains(e.collector.Log(), "certificate signed by unknown authority"), nil
			})
			require.Empty(t, e.server.all())

			// A reload with the CA and the certificate connects at once.
			e.edit(func(_, c map[string]any) {
				c["tls"] = map[string]any{"ca_file": cert, "cert_file": cert, "key_file": key}
			})
			e.collector.Signal(syscall.SIGHUP)
			first, _ := e.server.await(0, "the first message", func(received) bool { return true })
			require.True(t, isFull(first))
		})
	}
}

// Both transports go through a proxy that wants to be introduced to.
func TestProxy(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"ws", "http"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, transport)
			cert, key := harness.SelfSigned(t)
			pair, err := tls.LoadX509KeyPair(cert, key)
			require.NoError(t, err)
			front := httptest.NewUnstartedServer(http.HandlerFunc(e.server.serve))
			front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			front.StartTLS()
			t.Cleanup(front.Close)
			introduced := make(chan string, 16)
			proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				introduced <- r.Method + " " + r.Host + " " + r.Header.Get("X-Introduction")
				tunnel(w, r.Host)
			}))
			t.Cleanup(proxy.Close)
			e.edit(func(opamp, c map[string]any) {
				c["endpoint"] = transport + "s" + strings.TrimPrefix(front.URL, "https") + "/v1/opamp"
				c["tls"] = map[string]any{"ca_file": cert}
				opamp["server"].(map[string]any)["proxy"] = map[string]any{"url": proxy.URL, "connect_headers": map[string]any{"X-Introduction": "hello"}}
			})
			e.startSettled()
			require.Equal(t, "CONNECT "+front.Listener.Addr().String()+" hello", <-introduced)
		})
	}
}

// tunnel answers a CONNECT.
func tunnel(w http.ResponseWriter, target string) {
	upstream, err := net.Dial("tcp", target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = upstream.Close()
		return
	}
	go func() { _, _ = io.Copy(upstream, client); _ = upstream.Close() }()
	go func() { _, _ = io.Copy(client, upstream); _ = client.Close() }()
}

// A server that is not there yet keeps nobody from starting, and is found when it comes.
func TestServerComesLater(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"ws", "http"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, transport)
			address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t, "127.0.0.1"))
			e.edit(func(_, c map[string]any) { c["endpoint"] = transport + "://" + address + "/v1/opamp" })
			e.collector.Start()
			harness.Await(t, 20*time.Second, "a line in the log", func() (bool, any) {
				return strings.Contains(e.collector.Log(), "OpAMP server is not reachable"), nil
			})
			l, err := net.Listen("tcp", address)
			require.NoError(t, err)
			late := &http.Server{Handler: http.HandlerFunc(e.server.serve)}
			go func() { _ = late.Serve(l) }()
			t.Cleanup(func() { _ = late.Close() })
			first, _ := e.server.await(0, "the first message", func(received) bool { return true })
			require.True(t, isFull(first))
			require.Equal(t, 1, countLines(e.collector.Log(), "OpAMP server is not reachable"), "one line, not one per attempt")
		})
	}
}
