package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// hostsFile is a hosts file of the test's own: processes started behind its prefix see it as /etc/hosts.
type hostsFile struct {
	t    *testing.T
	path string
}

func newHostsFile(t *testing.T) hostsFile {
	return hostsFile{t, filepath.Join(t.TempDir(), "hosts")}
}

// set gives the name "samplers" the listen addresses of these Collectors. The file is rewritten in place: a mount binds to it.
func (h hostsFile) set(collectors ...*harness.Collector) {
	h.t.Helper()
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n")
	for _, c := range collectors {
		host, _, _ := strings.Cut(c.GRPC(), ":")
		fmt.Fprintf(&b, "%s samplers\n", host)
	}
	require.NoError(h.t, os.WriteFile(h.path, []byte(b.String()), 0o644))
}

// prefix enters a mount namespace in which the file is /etc/hosts.
func (h hostsFile) prefix() []string {
	return []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, h.path}
}

// One of three samplers is killed with -9 under load; DNS drops it soon after. What it held is lost: that is the
// price of deciding in memory, and it is counted. From the moment the ring has settled, nothing is lost or split.
func TestSamplerKilled(t *testing.T) {
	t.Parallel()
	sink := harness.StartSink(t)
	samplers := startSamplers(t, 3, sink, keepAll)
	hosts := newHostsFile(t)
	hosts.set(samplers...)
	_, port, _ := strings.Cut(samplers[0].GRPC(), ":")
	var endpoints []string
	for i := range 2 {
		endpoints = append(endpoints, harness.Start(t, harness.Options{
			Name: fmt.Sprintf("balancer-%d", i), Configs: []string{"tiered/balancer.yaml", "tiered/balancer-dns.yaml"},
			Env: map[string]string{
				"COLLIE_SAMPLERS_DNS": "samplers", "COLLIE_SAMPLER_PORT": port, "COLLIE_SAMPLERS_DNS_INTERVAL": "1s",
			},
			Prefix: hosts.prefix(),
		}).GRPC())
	}

	const rate, spansPerTrace = 2000, 10
	phase := traffic.LoadConfig{Endpoints: endpoints, Rate: rate, SpansPerTrace: spansPerTrace, Retry: true, Run: "5a3b1e00"}
	during := phase
	stop := harness.Background(t, during)
	harness.Await(t, 20*time.Second, "spans of all samplers at the sink", func() (bool, any) {
		n := sink.Summary().Spans
		return n > rate, n
	})

	samplers[1].Kill()
	hosts.set(samplers[0], samplers[2])
	// The name is looked up once a second, and Go reads /etc/hosts again after 5 s at the latest.
	const settled = 10 * time.Second
	time.Sleep(settled)
	disturbed := stop()

	after := phase
	after.FirstTrace = int(disturbed.Sent/spansPerTrace) + 1000
	after.Traces = 1000
	sum := load(t, after)
	require.Equal(t, sum.Sent, sum.Acknowledged, "%v", sum.Errors)
	harness.AwaitAll(t, sink, sum, 30*time.Second)
	for trace := after.FirstTrace; trace < after.FirstTrace+after.Traces; trace++ {
		require.Equal(t, spansPerTrace, sink.TraceSpans(sum.Run)[uint32(trace)], "trace %d is split", trace)
	}

	lost := traffic.Missing(disturbed.AcknowledgedSet(), sink.Received(sum.Run))
	t.Logf("killed one of three samplers at %d spans/s: %d of %d acknowledged spans lost (%d traces), 0 of %d afterwards",
		rate, lost.GetCardinality(), disturbed.Acknowledged, traces(lost, spansPerTrace), sum.Acknowledged)
	require.Less(t, lost.GetCardinality(), uint64(disturbed.Acknowledged)/3,
		"the other two samplers' shares, and what came later, arrived")
}

// traces counts the distinct traces of a set of sequence numbers.
func traces(seqs *roaring.Bitmap, spansPerTrace uint32) uint64 {
	set := roaring.New()
	for seq := range roaring.Values(seqs) {
		set.Add(seq / spansPerTrace)
	}
	return set.GetCardinality()
}
