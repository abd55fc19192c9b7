package fleet

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/tests/harness"
	"github.com/collie-otel/collie/tests/swarm"
)

// many is enough for several waves of work inside the server, and little for a busy machine.
const many = 300

// connectMany starts a server with many agents. Those of ring 0 refuse configurations with the word "refused" in them.
func connectMany(t *testing.T) (*harness.Server, *swarm.Swarm) {
	t.Helper()
	server := harness.StartServer(t, harness.ServerOptions{})
	agents, err := swarm.New(swarm.Config{
		URL: server.WebSocket(), Agents: many,
		Attributes: func(i int) (map[string]string, map[string]string) {
			return map[string]string{"service.name": "many"}, map[string]string{"half": strconv.Itoa(i % 2), "ring": strconv.Itoa(i % 10)}
		},
		Apply: func(i int, files map[string][]byte) error {
			for _, body := range files {
				if i%10 == 0 && strings.Contains(string(body), "refused") {
					return errors.New("ring 0 does not like it")
				}
			}
			return nil
		},
	})
	require.NoError(t, err)
	t.Cleanup(agents.Close)
	_, err = agents.Connect(t.Context(), 50)
	require.NoError(t, err)
	awaitTotal(t, server, many, "state", "healthy")
	return server, agents
}

// awaitTotal waits until a query finds so many agents.
func awaitTotal(t *testing.T, server *harness.Server, want int, query ...string) {
	t.Helper()
	harness.Await(t, limit, strings.Join(query, " "), func() (bool, any) {
		total := server.Agents(append(query, "limit", "1")...).Total
		return total == want, total
	})
}

func TestRolloutReachesEachAgentOnce(t *testing.T) {
	t.Parallel()
	server, agents := connectMany(t)
	rollout := server.RollOut("base", "half=0", "exporters: {nop: {}}\n")
	server.AwaitRollout(rollout.ID, "succeeded", limit)
	awaitTotal(t, server, many, "state", "healthy")
	require.EqualValues(t, many/2, agents.Counters().Offers.Load())
	require.EqualValues(t, many/2, agents.Counters().Applied.Load())
	require.Zero(t, agents.Counters().FullState.Load())
	require.Zero(t, agents.Counters().BadRequests.Load())
}

func TestRolloutThatFailsIsTakenBackFromAll(t *testing.T) {
	t.Parallel()
	server, agents := connectMany(t)
	server.AwaitRollout(server.RollOut("base", "half=0", "exporters: {nop: {}}\n").ID, "succeeded", limit)
	good := server.Agents("selector", "half=0", "limit", "1").Agents[0].RemoteConfig.DesiredHash
	server.AwaitRollout(server.RollOut("base", "half=0", "exporters: {nop/refused: {}}\n").ID, "rolled_back", limit)
	awaitTotal(t, server, many, "state", "healthy")
	for _, a := range server.Agents("selector", "half=0", "limit", "500").Agents {
		require.Equal(t, "APPLIED", a.RemoteConfig.Status, a.InstanceUID)
		require.Equal(t, good, a.RemoteConfig.ReportedHash, a.InstanceUID)
	}
	require.Positive(t, agents.Counters().Failed.Load())
}

func TestPlanAsksEveryAgent(t *testing.T) {
	t.Parallel()
	server, agents := connectMany(t)
	selector := "ring=3"
	var plan apiv1.Plan
	server.Must(http.MethodPost, "/plans", apiv1.PlanRequest{Name: "new", Selector: &selector, Body: "processors: {batch: {}}\n"}, &plan)
	harness.Await(t, limit, "the plan", func() (bool, any) {
		id := plan.ID
		plan = apiv1.Plan{}
		server.Must(http.MethodGet, "/plans/"+id, nil, &plan)
		return plan.State == "done", plan
	})
	require.Len(t, plan.Agents, many/10)
	require.Equal(t, many/10, plan.Accepted)
	require.Contains(t, plan.Agents[0].Diff, "\n+processors: {batch: {}}\n")
	require.Zero(t, agents.Counters().Offers.Load(), "a plan changes nothing")
}

func TestAgentsComeBack(t *testing.T) {
	t.Parallel()
	server, agents := connectMany(t)
	server.AwaitRollout(server.RollOut("base", "", "exporters: {nop: {}}\n").ID, "succeeded", limit)
	offers := agents.Counters().Offers.Load()

	require.Equal(t, many/2, agents.Drop(many/2))
	awaitTotal(t, server, many/2, "state", "disconnected")
	_, err := agents.Reconnect(t.Context(), many/2)
	require.NoError(t, err)
	awaitTotal(t, server, many, "state", "healthy")
	require.Zero(t, agents.Counters().FullState.Load(), "what did not change need not be said again")

	server.MustStop()
	harness.Await(t, limit, "all agents cut off", func() (bool, any) { n := agents.Connected(); return n == 0, n })
	require.EqualValues(t, many, agents.Counters().Closed.Load(), "with a Close frame each")
	server.Start()
	_, err = agents.Reconnect(t.Context(), many)
	require.NoError(t, err)
	awaitTotal(t, server, many, "state", "healthy")
	require.Equal(t, offers, agents.Counters().Offers.Load(), "what they have is not offered again")
}
