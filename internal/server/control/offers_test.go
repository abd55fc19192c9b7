package control

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

// Settings that could not be sent are, to an agent too that does not say what it has. They are not, once they were.
func TestSettingsThatWereNotSent(t *testing.T) {
	t.Parallel()
	broken := &brokenStore{}
	w := newWorld(t, func(o *Options) { broken.Store, o.Store = o.Store, broken })
	a := w.agent(nil)
	a.full.Capabilities |= uint64(fleet.ReportsOwnMetrics)
	a.hello()
	a.stored()
	broken.fail.Store(true)
	require.NoError(t, w.SaveConnection(t.Context(), "test", apiv1.Connection{Name: "own", ConnectionOffer: apiv1.ConnectionOffer{
		OwnMetrics: &apiv1.Destination{Endpoint: "http://127.0.0.1:9/v1/metrics"},
	}}))
	for range 3 {
		w.round(t.Context())
		require.Nil(t, a.poll().ConnectionSettings)
	}
	broken.fail.Store(false)
	w.until("the settings", func() (bool, any) { return a.poll().ConnectionSettings != nil, a.stored().ConnectionSettings })
	a.goodbye()
	for range 3 {
		require.Nil(t, a.hello().ConnectionSettings)
		w.round(t.Context())
	}
}

// noPackages has none for any platform, and counts how often it is asked.
type noPackages struct{ asked atomic.Int32 }

func (*noPackages) List() []apiv1.Package { return []apiv1.Package{{Version: "1"}} }

func (*noPackages) PlatformOf(map[string]string) (os, arch string, ok bool) {
	return "plan9", "mips", true
}

func (p *noPackages) Offer(string, string, string, string, http.Header) (*protobufs.PackagesAvailable, error) {
	p.asked.Add(1)
	return nil, errors.New("no such platform")
}

// An agent for which nothing is due costs nothing until something changes, and no line in the log for each look.
func TestSettledAgentsAreLeftAlone(t *testing.T) {
	t.Parallel()
	packages := &noPackages{}
	w := newWorld(t, func(o *Options) { o.Packages = packages })
	a := w.agent(nil)
	a.full.Capabilities |= uint64(fleet.AcceptsPackages)
	a.hello()
	require.NoError(t, w.SavePackageOffer(t.Context(), "test", apiv1.PackageOffer{Name: "all", Version: "1"}))
	for range 20 {
		w.round(t.Context())
		a.poll()
	}
	require.EqualValues(t, 1, packages.asked.Load())
	a.send(&protobufs.AgentToServer{Capabilities: a.full.Capabilities, Health: &protobufs.ComponentHealth{Healthy: false, LastError: "x"}})
	require.EqualValues(t, 2, packages.asked.Load())
}
