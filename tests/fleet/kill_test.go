package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
	"github.com/collie-otel/collie/tests/swarm"
)

// offers is what simulated agents were given, and what they may be given now.
type offers struct {
	mu      sync.Mutex
	allowed map[string]bool // bodies
	wrong   []string
	last    map[int]string
}

func (o *offers) allow(bodies ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.allowed = map[string]bool{}
	for _, b := range bodies {
		o.allowed[b] = true
	}
}

var errBad = errors.New("this agent cannot run it")

// apply fails for what is bad.
func (o *offers) apply(i int, files map[string][]byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	body := string(files["0000-fleet"])
	if !o.allowed[body] || len(files) > 1 {
		o.wrong = append(o.wrong, fmt.Sprintf("agent %d was given %q of %d files", i, body, len(files)))
	}
	if strings.HasPrefix(body, "bad") {
		return errBad
	}
	o.last[i] = body
	return nil
}

// acknowledged is what the server has told or taken before it was killed.
type acknowledged struct {
	events   map[int64]apiv1.Event
	versions map[string]int
}

// watch reads all events and saves versions until the server is gone.
func (a *acknowledged) watch(s *harness.Server) {
	for i := 0; ; i++ {
		var page apiv1.Events
		if s.Do(http.MethodGet, "/audit?limit=200", nil, &page) != nil {
			return
		}
		for _, e := range page.Events {
			a.events[e.ID] = e
		}
		var saved apiv1.Configuration
		name := fmt.Sprintf("noise-%d", i%3)
		if s.Do(http.MethodPut, "/configurations/"+name, apiv1.SaveConfiguration{Selector: "nobody", Body: "x: 1"}, &saved) != nil {
			return
		}
		a.versions[name] = saved.Version
	}
}

// verify requires that all of it is there still.
func (a *acknowledged) verify(t *testing.T, s *harness.Server) {
	t.Helper()
	found := map[int64]apiv1.Event{}
	for cursor := ""; ; {
		var page apiv1.Events
		s.Must(http.MethodGet, "/audit?limit=1000"+cursor, nil, &page)
		for _, e := range page.Events {
			found[e.ID] = e
		}
		if page.NextCursor == "" {
			break
		}
		cursor = "&cursor=" + page.NextCursor
	}
	for id, e := range a.events {
		require.Equal(t, e, found[id], "an event that was shown is gone")
	}
	for name, version := range a.versions {
		var c apiv1.Configuration
		s.Must(http.MethodGet, "/configurations/"+name, nil, &c)
		require.GreaterOrEqual(t, c.Version, version)
	}
}

// The server is killed at random moments of rollouts, good and bad ones. Each goes on and comes to its end, nobody is given anything but the
// version before and the new one, what failed is not given again, and nothing that was acknowledged is lost.
func TestServerKilledDuringRollouts(t *testing.T) {
	t.Parallel()
	const kills, agents = 20, 30
	server := harness.StartServer(t, harness.ServerOptions{})
	given := &offers{last: map[int]string{}}
	herd, err := swarm.New(swarm.Config{URL: server.WebSocket(), Agents: agents, Apply: given.apply, MaxWait: 100 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(herd.Close)
	_, err = herd.Connect(t.Context(), agents)
	require.NoError(t, err)
	seen := &acknowledged{events: map[int64]apiv1.Event{}, versions: map[string]int{}}
	released := ""
	for i := range kills {
		body, want := fmt.Sprintf("good: %d", i), "succeeded"
		if i%3 == 2 {
			body, want = fmt.Sprintf("bad: %d", i), "rolled_back"
		}
		given.allow(released, body)
		id := startRollout(server, body)
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			seen.watch(server)
		}()
		time.Sleep(rand.N(1200 * time.Millisecond)) // any moment of a rollout of about a second
		server.Signal(syscall.SIGKILL)
		_ = server.Wait()
		<-watching
		server.Start()
		_, err := herd.Reconnect(t.Context(), agents)
		require.NoError(t, err)
		server.AwaitRollout(id, want, limit)
		if want == "succeeded" {
			released = body
		}
		harness.Await(t, limit, "all agents run "+released, func() (bool, any) {
			page := server.Agents("state", "healthy")
			return page.Total == agents && given.all(agents, released), fmt.Sprintf("%d healthy", page.Total)
		})
		seen.verify(t, server)
	}
	given.mu.Lock()
	defer given.mu.Unlock()
	require.Empty(t, given.wrong)
	require.Zero(t, herd.Counters().RepeatedOffers.Load(), "nobody is given again what it has judged")
	t.Logf("%d kills, %d events and %d versions acknowledged, all there", kills, len(seen.events), seen.versions["noise-0"]+seen.versions["noise-1"]+seen.versions["noise-2"])
}

func startRollout(s *harness.Server, body string) (id string) {
	s.Must(http.MethodPut, "/configurations/fleet", apiv1.SaveConfiguration{Body: body}, nil)
	soak := "200ms"
	var rollout apiv1.Rollout
	s.Must(http.MethodPost, "/rollouts", apiv1.RolloutRequest{Configuration: "fleet", Waves: []string{"10%", "50%", "100%"}, Soak: &soak}, &rollout)
	return rollout.ID
}

// all says whether every agent has this.
func (o *offers) all(n int, body string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range n {
		if o.last[i] != body {
			return false
		}
	}
	return true
}
