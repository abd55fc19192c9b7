package opampserver

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestUpstreamClient drives the server with opamp-go's own client.
func TestUpstreamClient(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "upstreamclient")
	out, err := exec.Command("go", "build", "-C", filepath.Join("..", "..", "..", "tests", "opamp", "upstreamclient"), "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, transport := range []Transport{WebSocket, HTTP} {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			g, uid := newRig(t, Options{}), newUID()
			var stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), program, "-endpoint", g.endpoint(transport), "-instance-uid", uid.String())
			cmd.Stderr, cmd.WaitDelay = &stderr, time.Second
			require.NoError(t, cmd.Start())
			until := func(what string, done func() bool) {
				t.Helper()
				require.Eventually(t, done, limit, time.Millisecond, what)
			}
			until("a full report", func() bool { return g.fleet.last().State.EffectiveConfigHash != "" })
			require.True(t, g.fleet.some(func(r *Report) bool { return r.State.Description != nil && r.Changed.Has(PartDescription) }))
			require.NoError(t, g.Push(uid, &Offer{RemoteConfig: config()}))
			until("the configuration's status", func() bool {
				return g.fleet.some(func(r *Report) bool { return string(r.State.RemoteConfigStatus.GetLastRemoteConfigHash()) == "hash" })
			})
			require.NoError(t, g.Push(uid, &Offer{FullState: true}))
			until("another full report", func() bool { return g.Metrics().In[KindFull] >= 2 })
			require.NoError(t, g.Push(uid, &Offer{Restart: true}))
			require.NoError(t, cmd.Wait(), "%s", &stderr)
			require.Zero(t, g.Metrics().Gaps)
			require.Zero(t, g.Metrics().In[KindMalformed])
			if transport == WebSocket { // over HTTP this client does not say goodbye
				g.awaitGone(uid, ReasonDisconnect)
			}
		})
	}
}
