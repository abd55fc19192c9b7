package steadyotlpreceiver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/pprofile/pprofileotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

func exportLogs(ctx context.Context, conn *grpc.ClientConn) error {
	ld := plog.NewLogs()
	ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	_, err := plogotlp.NewGRPCClient(conn).Export(ctx, plogotlp.NewExportRequestFromLogs(ld))
	return err
}

func exportMetrics(ctx context.Context, conn *grpc.ClientConn) error {
	md := pmetric.NewMetrics()
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty()
	_, err := pmetricotlp.NewGRPCClient(conn).Export(ctx, pmetricotlp.NewExportRequestFromMetrics(md))
	return err
}

func exportProfiles(ctx context.Context, conn *grpc.ClientConn) error {
	pd := pprofile.NewProfiles()
	pd.ResourceProfiles().AppendEmpty().ScopeProfiles().AppendEmpty().Profiles().AppendEmpty().Samples().AppendEmpty()
	_, err := pprofileotlp.NewGRPCClient(conn).Export(ctx, pprofileotlp.NewExportRequestFromProfiles(pd))
	return err
}

// A signal that a reload adds is served on the connections that there are, one that is in no pipeline is answered as by
// the Collector's own receiver.
func TestSignalsComeAndGo(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	s := tracesTo(both(g, h))
	conn, c := dial(t, g), client(t)
	run := begin(t, s)
	in := run.receivers[0].(*steadyReceiver).inner
	require.NoError(t, export(t.Context(), conn))
	for _, export := range []func(context.Context, *grpc.ClientConn) error{exportLogs, exportMetrics, exportProfiles} {
		require.Equal(t, codes.Unimplemented, status.Code(export(t.Context(), conn)))
	}
	response, err := post(t.Context(), c, "http://"+h+"/v1/logs")
	require.Error(t, err)
	require.Equal(t, http.StatusNotFound, response.StatusCode)

	run.stop(t, true)
	logs, metrics, profiles := new(consumertest.LogsSink), new(consumertest.MetricsSink), new(consumertest.ProfilesSink)
	s.next = consumers{logs: logs, metrics: metrics, profiles: profiles}
	run = begin(t, s)
	require.Same(t, in, run.receivers[0].(*steadyReceiver).inner)
	require.NoError(t, exportLogs(t.Context(), conn))
	require.NoError(t, exportMetrics(t.Context(), conn))
	require.NoError(t, exportProfiles(t.Context(), conn))
	require.Equal(t, 1, logs.LogRecordCount())
	require.Equal(t, 1, metrics.DataPointCount())
	require.Equal(t, 1, profiles.SampleCount())
	require.Equal(t, codes.Unimplemented, status.Code(export(t.Context(), conn)))
	response, err = post(t.Context(), c, "http://"+h+"/v1/traces")
	require.Error(t, err)
	require.Equal(t, http.StatusNotFound, response.StatusCode)
	run.stop(t, false)
}

// The signal of a request goes away while it is within the receiver already.
func TestASignalThatIsGoneWhenTheDataIsRead(t *testing.T) {
	in := &inner{gate: newGate()}
	in.gate.serve(&generation{})
	for _, err := range []error{
		in.ConsumeTraces(t.Context(), traces().Traces()), in.ConsumeLogs(t.Context(), plog.NewLogs()),
		in.ConsumeMetrics(t.Context(), pmetric.NewMetrics()), in.ConsumeProfiles(t.Context(), pprofile.NewProfiles()),
	} {
		require.Equal(t, codes.Unimplemented, status.Code(err))
	}
	require.NoError(t, in.gate.close(t.Context()))
	require.Equal(t, consumer.Capabilities{}, in.Capabilities())
}

func TestPathsChangeWithoutARestart(t *testing.T) {
	g, h := freeAddress(t), freeAddress(t)
	c := client(t)
	config := func(traces string) string {
		return `{protocols: {grpc: {endpoint: "` + g + `"}, http: {endpoint: "` + h + `", traces_url_path: ` + traces + `}}}`
	}
	run := begin(t, tracesTo(config("/a/b")))
	in := run.receivers[0].(*steadyReceiver).inner
	_, err := post(t.Context(), c, "http://"+h+"/a/b")
	require.NoError(t, err)
	_, err = post(t.Context(), c, "http://"+h+"/v1/traces")
	require.ErrorIs(t, err, errStatus)
	run.stop(t, true)

	run = begin(t, tracesTo(config("/v1/metrics"))) // free as long as no metrics are served
	require.Same(t, in, run.receivers[0].(*steadyReceiver).inner)
	_, err = post(t.Context(), c, "http://"+h+"/v1/metrics")
	require.NoError(t, err)
	run.stop(t, true)

	s := tracesTo(config("/v1/metrics"))
	s.next.metrics = new(consumertest.MetricsSink)
	run = create(t, newHost(nil), s)
	require.ErrorContains(t, run.start(t), "/v1/metrics")
	run.stop(t, true)
	require.Equal(t, []*inner{in}, parkedNow())
	unpark(t)
}

func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "g")
	s := tracesTo(`{protocols: {grpc: {endpoint: ` + socket + `, transport: unix}}}`)
	conn := dial(t, "unix:"+socket)
	for range 3 {
		run := begin(t, s)
		require.NoError(t, export(t.Context(), conn))
		run.stop(t, true)
	}
	unpark(t)
	require.NoFileExists(t, socket)
}

func TestMutualTLSAndChangedCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t)
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	cert, key := ca.issue(t)
	g := freeAddress(t)
	s := tracesTo(`{protocols: {grpc: {endpoint: "` + g + `", tls: {cert_file: ` + write("cert", cert) + `, key_file: ` +
		write("key", key) + `, client_ca_file: ` + write("ca", ca.pem) + `}}}}`)

	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(ca.pem))
	own, err := tls.X509KeyPair(ca.issue(t))
	require.NoError(t, err)
	secure := func(certificates ...tls.Certificate) *grpc.ClientConn {
		conn, err := grpc.NewClient(g, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: certificates})))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	conn := secure(own)
	run := begin(t, s)
	in := run.receivers[0].(*steadyReceiver).inner
	require.NoError(t, export(t.Context(), conn))
	require.Error(t, export(t.Context(), secure()))
	run.stop(t, true)

	run = begin(t, s)
	require.Same(t, in, run.receivers[0].(*steadyReceiver).inner)
	require.NoError(t, export(t.Context(), conn))
	run.stop(t, true)

	cert, key = ca.issue(t)
	write("cert", cert)
	write("key", key)
	run = begin(t, s)
	require.NotSame(t, in, run.receivers[0].(*steadyReceiver).inner)
	require.NoError(t, export(t.Context(), secure(own)))
	run.stop(t, false)
}
