package opamp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

const (
	applied  = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLIED
	applying = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_APPLYING
	failed   = protobufs.ConnectionSettingsStatuses_ConnectionSettingsStatuses_FAILED
)

func connectionOffer(hash string, settings *protobufs.OpAMPConnectionSettings) reaction {
	return reaction{answer: &protobufs.ServerToAgent{ConnectionSettings: &protobufs.ConnectionSettingsOffers{Hash: []byte(hash), Opamp: settings}}}
}

func move(hash, endpoint string) reaction {
	return connectionOffer(hash, &protobufs.OpAMPConnectionSettings{DestinationEndpoint: endpoint, HeartbeatIntervalSeconds: 1})
}

// reports waits for a status of an offer.
func (s *fakeServer) reports(from int, hash string, want protobufs.ConnectionSettingsStatuses) (received, int) {
	s.t.Helper()
	return s.await(from, fmt.Sprintf("%v of %s", want, hash), func(m received) bool {
		st := m.ConnectionSettingsStatus
		return string(st.GetLastConnectionSettingsHash()) == hash && st.GetStatus() == want
	})
}

// over is the address of a server for a transport.
func over(transport string, s *fakeServer) string {
	return transport + "://" + s.address() + "/v1/opamp"
}

// requireUntouched: no offer has moved anything but the connection.
func (e *env) requireUntouched(next int, servers ...*fakeServer) {
	e.t.Helper()
	require.True(e.t, e.collector.Running())
	require.Equal(e.t, 1, countLines(e.collector.Log(), "Everything is ready."), "the pipelines were not restarted")
	for _, s := range append(servers, e.server) {
		from := 0
		if s == e.server {
			from = next
		}
		for _, m := range s.all()[from:] {
			require.True(e.t, m.Health == nil || m.Health.Healthy, "the health of the agent is its pipelines'")
		}
	}
}

func (e *env) stateFile() string {
	opamp := e.config["extensions"].(map[string]any)["opamp"].(map[string]any)
	return filepath.Join(opamp["storage"].(map[string]any)["directory"].(string), "connection.json")
}

// front serves a fake server over TLS, and returns its address without a scheme.
func front(t *testing.T, s *fakeServer, config *tls.Config) string {
	t.Helper()
	f := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	f.TLS = config
	f.StartTLS()
	t.Cleanup(f.Close)
	return strings.TrimPrefix(f.URL, "https") + "/v1/opamp"
}

// vouched is a certificate that is its own CA, as a pair, PEM and a file.
type vouched struct {
	pair     tls.Certificate
	pem, key []byte
	certFile string
	pool     *x509.CertPool
}

func selfSigned(t *testing.T) vouched {
	t.Helper()
	cert, key := harness.SelfSigned(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	v := vouched{pair: pair, certFile: cert, pool: x509.NewCertPool()}
	v.pem, err = os.ReadFile(cert)
	require.NoError(t, err)
	v.key, err = os.ReadFile(key)
	require.NoError(t, err)
	require.True(t, v.pool.AppendCertsFromPEM(v.pem))
	return v
}

// switchTo has the agent go to another server.
func (e *env) switchTo(two *fakeServer, transport, hash string) {
	e.t.Helper()
	e.server.push(move(hash, over(transport, two)))
	two.reports(0, hash, applied)
}

// requireSwitch: the server is told, left in order, and the pipelines do not hear of it.
func requireSwitch(t *testing.T, e *env, transport string) {
	t.Helper()
	two := newFakeServer(t)
	first, next := e.startSettled()
	require.NotZero(t, first.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings))
	require.NotZero(t, first.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus))
	e.server.push(move("one", over(transport, two)))
	_, told := e.server.reports(next, "one", applying)
	bye, left := e.server.await(told, "agent_disconnect", func(m received) bool { return m.AgentDisconnect != nil })
	report, _ := two.await(0, "the first report", func(received) bool { return true })
	require.True(t, isFull(report))
	require.Equal(t, uidOf(first), uidOf(report))
	require.False(t, report.at.Before(bye.at), "one connection at a time")
	two.reports(1, "one", applied)
	two.await(2, "a heartbeat as offered", isEmpty)
	require.Len(t, e.server.all(), left)
	e.requireUntouched(next, two)

	// Once more on the new connection: nothing is tried.
	attempts := len(two.tried())
	two.push(move("one", "ws://127.0.0.1:1/"))
	at := len(two.all())
	two.reports(at, "one", applied)
	if transport == "ws" {
		require.Len(t, two.tried(), attempts)
	}

	// And the next process begins where this one ends.
	e.collector.Kill()
	at = len(two.all())
	e.collector.Start()
	again, _ := two.await(at, "the agent again", func(received) bool { return true })
	require.Equal(t, applied, again.ConnectionSettingsStatus.GetStatus())
	require.Len(t, e.server.all(), left)
}

const offerFlow = "OpAMP Connection Setting Offer Flow"

var connectionDuties = []duty{
	{"a switch to WebSocket", offerFlow, "", func(t *testing.T, e *env) { requireSwitch(t, e, "ws") }},
	{"a switch to HTTP", offerFlow, "", func(t *testing.T, e *env) { requireSwitch(t, e, "http") }},
	{"a dead endpoint", offerFlow, "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		dead := fmt.Sprintf("%s://127.0.0.1:%d/v1/opamp", e.transport, harness.FreePort(t, "127.0.0.1"))
		e.server.push(move("dead", dead))
		told, next := e.server.reports(next, "dead", applying)
		m, next := e.server.reports(next, "dead", failed)
		require.Less(t, m.at.Sub(told.at), 30*time.Second)
		require.Contains(t, m.ConnectionSettingsStatus.ErrorMessage, "refused")
		require.True(t, isFull(m))
		e.server.push(move("dead", dead))
		e.requireAlive(next)
		e.requireUntouched(next)
		all := e.server.all()
		for _, m := range all[next:] {
			require.Equal(t, all[next].connection, m.connection, "nothing is tried again")
			require.Nil(t, m.AgentDisconnect)
		}
	}},
	{"a server that refuses the agent", offerFlow, "", func(t *testing.T, e *env) {
		two := newFakeServer(t)
		two.script(func() {
			two.refuse = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusUnauthorized); return true }
		})
		_, next := e.startSettled()
		e.server.push(move("401", over(e.transport, two)))
		m, _ := e.server.reports(next, "401", failed)
		require.Contains(t, m.ConnectionSettingsStatus.ErrorMessage, "refuses the credentials")
		require.Len(t, two.tried(), 1)
	}},
	{"verification is kept", "TLSConnectionSettings", "", func(t *testing.T, e *env) {
		known, stranger, two := selfSigned(t), selfSigned(t), newFakeServer(t)
		address := front(t, two, &tls.Config{Certificates: []tls.Certificate{stranger.pair}})
		e.edit(func(_, c map[string]any) {
			c["endpoint"] = e.transport + "s" + front(t, e.server, &tls.Config{Certificates: []tls.Certificate{known.pair}})
			c["tls"] = map[string]any{"ca_file": known.certFile}
			c["headers"] = map[string]any{"Authorization": "Bearer ${env:APP_TOKEN}"}
		})
		_, next := e.startSettled()
		for hash, tc := range map[string]struct {
			settings *protobufs.OpAMPConnectionSettings
			reason   string
		}{
			"no certificate": {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: e.transport + "s" + address}, "unknown authority"},
			"skipped": {&protobufs.OpAMPConnectionSettings{
				DestinationEndpoint: e.transport + "s" + address, Tls: &protobufs.TLSConnectionSettings{InsecureSkipVerify: true},
			}, "insecure_skip_verify"},
			"plaintext": {&protobufs.OpAMPConnectionSettings{DestinationEndpoint: over(e.transport, two)}, "give up TLS"},
			"old TLS":   {&protobufs.OpAMPConnectionSettings{Tls: &protobufs.TLSConnectionSettings{MinVersion: "1.0"}}, "below 1.2"},
		} {
			e.server.push(connectionOffer(hash, tc.settings))
			m, n := e.server.reports(next, hash, failed)
			require.Contains(t, m.ConnectionSettingsStatus.ErrorMessage, tc.reason)
			next = n
		}
		require.Empty(t, two.all(), "nobody heard a word, or a token")
		require.NotContains(t, e.collector.Log(), "s3cr3t-value")
	}},
	{"an offered CA and client certificate", "TLSCertificate", "", func(t *testing.T, e *env) {
		ours, two := selfSigned(t), newFakeServer(t)
		address := front(t, two, &tls.Config{Certificates: []tls.Certificate{ours.pair}, ClientCAs: ours.pool, ClientAuth: tls.RequireAndVerifyClientCert})
		_, next := e.startSettled()
		settings := &protobufs.OpAMPConnectionSettings{
			DestinationEndpoint: e.transport + "s" + address, HeartbeatIntervalSeconds: 1,
			Tls: &protobufs.TLSConnectionSettings{CaPemContents: string(ours.pem)},
		}
		e.server.push(connectionOffer("without", settings))
		m, _ := e.server.reports(next, "without", failed)
		require.Contains(t, m.ConnectionSettingsStatus.ErrorMessage, "certificate required")
		settings.Certificate = &protobufs.TLSCertificate{Cert: ours.pem, PrivateKey: ours.key, CaCert: ours.pem}
		e.server.push(connectionOffer("with", settings))
		two.reports(0, "with", applied)
		state, err := os.Stat(e.stateFile())
		require.NoError(t, err)
		require.EqualValues(t, 0o600, state.Mode().Perm())
		at := len(two.all())
		e.collector.Kill()
		e.collector.Start()
		two.await(at, "the agent again", func(received) bool { return true })
		require.NotContains(t, e.collector.Log(), "PRIVATE KEY")
	}},
	{"a certificate of the server's CA, for a key that stays here", "Agent-initiated CSR Flow", "", func(t *testing.T, e *env) {
		ca, two := newAuthority(t), newFakeServer(t)
		ours := selfSigned(t)
		address := front(t, two, &tls.Config{Certificates: []tls.Certificate{ours.pair}, ClientCAs: ca.pool, ClientAuth: tls.RequireAndVerifyClientCert})
		e.edit(func(opamp, c map[string]any) {
			c["endpoint"] = e.transport + "s" + front(t, e.server, &tls.Config{Certificates: []tls.Certificate{ours.pair}})
			c["tls"] = map[string]any{"ca_file": ours.certFile}
			opamp["server"].(map[string]any)["request_certificate"] = true
		})
		issues := serverCapabilities | uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsConnectionSettingsRequest)
		for _, s := range []*fakeServer{e.server, two} {
			s.script(func() {
				s.react = func(m *protobufs.AgentToServer) reaction {
					re := reaction{answer: &protobufs.ServerToAgent{Capabilities: issues}}
					if csr := m.ConnectionSettingsRequest.GetOpamp().GetCertificateRequest().GetCsr(); csr != nil {
						re.answer.ConnectionSettings = &protobufs.ConnectionSettingsOffers{Hash: []byte("issued"), Opamp: &protobufs.OpAMPConnectionSettings{
							DestinationEndpoint: e.transport + "s" + address, HeartbeatIntervalSeconds: 1,
							Certificate: &protobufs.TLSCertificate{Cert: ca.sign(csr), CaCert: ca.pem},
						}}
					}
					return re
				}
			})
		}
		e.collector.Start()
		asked, _ := e.server.await(0, "a CSR", func(m received) bool { return m.ConnectionSettingsRequest != nil })
		require.Equal(t, uidOf(asked).String(), ca.subject(asked.ConnectionSettingsRequest.Opamp.CertificateRequest.Csr))
		_, at := two.reports(0, "issued", applied)
		two.await(at+1, "a heartbeat", isEmpty)
		e.collector.Kill()
		at = len(two.all())
		e.collector.Start()
		two.await(at+3, "the agent again", isEmpty)
		for _, m := range two.all() {
			require.Nil(t, m.ConnectionSettingsRequest, "there is a valid one")
		}
	}},
	{"killed at any moment, the agent has one of the two", offerFlow, "", func(t *testing.T, e *env) {
		for i, moment := range []string{"told", "left", "silence", "verified"} {
			two, hash := newFakeServer(t), moment
			if moment == "silence" {
				two.script(func() { two.react = func(*protobufs.AgentToServer) reaction { return silence(e.transport) } })
			}
			_, next := e.startSettled()
			e.server.push(move(hash, over(e.transport, two)))
			switch moment {
			case "told":
				e.server.reports(next, hash, applying)
			case "left":
				e.server.await(next, "agent_disconnect", func(m received) bool { return m.AgentDisconnect != nil })
			default:
				two.await(0, "the first report", func(received) bool { return true })
			}
			e.collector.Kill()
			two.script(func() { two.react = func(*protobufs.AgentToServer) reaction { return reaction{} } })
			at := len(two.all())
			e.collector.Start()
			m, _ := two.await(at, "the agent again, where it was offered to go", func(m received) bool {
				return m.ConnectionSettingsStatus.GetStatus() == applied
			})
			require.Equal(t, hash, string(m.ConnectionSettingsStatus.LastConnectionSettingsHash), i)
			e.collector.Stop()
			require.NoError(t, os.Remove(e.stateFile()))
			e.server.script(func() { e.server.messages = nil })
		}
	}},
	{"killed while it tries a dead endpoint, the agent comes back", offerFlow, "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(move("dead", fmt.Sprintf("ws://127.0.0.1:%d/", harness.FreePort(t, "127.0.0.1"))))
		e.server.await(next, "agent_disconnect", func(m received) bool { return m.AgentDisconnect != nil })
		e.collector.Kill()
		at, began := len(e.server.all()), time.Now()
		e.collector.Start()
		e.server.reports(at, "dead", failed)
		require.Less(t, time.Since(began), 30*time.Second)
	}},
	{"a damaged state file", offerFlow, "", func(t *testing.T, e *env) {
		two := newFakeServer(t)
		e.startSettled()
		e.switchTo(two, "ws", "moved")
		e.collector.Stop()
		require.NoError(t, os.Truncate(e.stateFile(), 0))
		at := len(e.server.all())
		e.collector.Start()
		m, _ := e.server.await(at, "the agent as configured", isFull)
		require.Empty(t, m.ConnectionSettingsStatus.GetLastConnectionSettingsHash())
		require.Contains(t, e.collector.Log(), "stored connection settings were damaged")
	}},
	{"the local configuration wins when it changes", offerFlow, "", func(t *testing.T, e *env) {
		two := newFakeServer(t)
		e.startSettled()
		e.switchTo(two, e.transport, "moved")
		at := len(e.server.all())
		e.edit(func(_, c map[string]any) { c["headers"] = map[string]any{"X-New": "yes"} })
		e.collector.Signal(syscall.SIGHUP)
		m, _ := e.server.await(at, "the agent as configured", isFull)
		require.Equal(t, "yes", m.header.Get("X-New"))
		two.await(0, "agent_disconnect", func(m received) bool { return m.AgentDisconnect != nil })
	}},
	{"a flood of offers", "Throttling", "", func(t *testing.T, e *env) {
		n := 0
		dead := fmt.Sprintf("ws://127.0.0.1:%d/", harness.FreePort(t, "127.0.0.1"))
		e.server.script(func() {
			e.server.react = func(*protobufs.AgentToServer) reaction {
				n++
				re := connectionOffer(fmt.Sprint("flood", n), &protobufs.OpAMPConnectionSettings{
					DestinationEndpoint: dead, Tls: &protobufs.TLSConnectionSettings{MinVersion: "1.0"},
				})
				re.answer.Flags = fullState
				return re
			}
		})
		e.collector.Start()
		time.Sleep(8 * time.Second) // the length of the observation
		statuses := 0
		for i, m := range e.server.all() {
			if m.ConnectionSettingsStatus.GetStatus() == failed && (i == 0 || string(m.ConnectionSettingsStatus.LastConnectionSettingsHash) != string(e.server.all()[i-1].ConnectionSettingsStatus.GetLastConnectionSettingsHash())) {
				statuses++
			}
		}
		require.GreaterOrEqual(t, statuses, 1)
		require.LessOrEqual(t, statuses, 5)
		e.server.script(func() { e.server.react = func(*protobufs.AgentToServer) reaction { return reaction{} } })
		e.requireAlive(len(e.server.all()))
	}},
	{"offers switched off", "AgentCapabilities.AcceptsOpAMPConnectionSettings", "", func(t *testing.T, e *env) {
		e.edit(switchOff("accepts_opamp_connection_settings"))
		first, next := e.startSettled()
		require.Zero(t, first.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings))
		e.server.push(move("h", "ws://127.0.0.1:1/"))
		next = e.requireAlive(next)
		require.Empty(t, e.server.all()[next-1].ConnectionSettingsStatus.GetLastConnectionSettingsHash())
	}},
}

// silence is a server that takes a message and never answers, as far as a transport allows.
func silence(transport string) reaction {
	if transport == "http" {
		return reaction{status: http.StatusBadGateway}
	}
	return reaction{silent: true}
}

func TestConnectionSettings(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"ws", "http"} {
		for _, d := range connectionDuties {
			t.Run(transport+"/"+d.section+"/"+d.name, func(t *testing.T) {
				t.Parallel()
				d.run(t, newEnv(t, transport))
			})
		}
	}
}

// authority is a CA that signs certificate requests.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pool}
}

func (a *authority) request(csrPEM []byte) *x509.CertificateRequest {
	block, _ := pem.Decode(csrPEM)
	if block == nil {
		a.t.Errorf("a CSR that is not PEM: %q", csrPEM)
		return &x509.CertificateRequest{}
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		a.t.Errorf("a CSR that is none: %v", err)
		return &x509.CertificateRequest{}
	}
	return csr
}

func (a *authority) subject(csrPEM []byte) string { return a.request(csrPEM).Subject.CommonName }

func (a *authority) sign(csrPEM []byte) []byte {
	csr := a.request(csrPEM)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: csr.Subject, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, csr.PublicKey, a.key)
	if err != nil {
		a.t.Errorf("sign a CSR: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
