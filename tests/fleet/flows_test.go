package fleet

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/tests/harness"
)

// A plan that all accept, and a rollout that succeeds: in waves, under load, without one refused request.
func TestPlanThenRollout(t *testing.T) {
	t.Parallel()
	h := newHerd(t, "prod-1", "prod-2", "prod-3", "stage-1")
	stop := h.load()
	file := h.body(addAttribute)
	code, printed := h.collie("plan", "-f", file, "--name", "attribute", "--selector", "group=prod")
	require.Equal(t, 0, code, printed)
	require.Contains(t, printed, "of 3 agents, 3 accept, 0 refuse, 0 cannot tell")
	require.Regexp(t, `(?m)^\+ +key: pushed$`, printed)
	for name := range h.collectors {
		require.Zero(t, h.reloads(name), "a plan changes nothing")
	}

	code, printed = h.collie("config", "apply", "-f", file, "--name", "attribute", "--selector", "group=prod",
		"--rollout", "--canary", "1", "--waves", "50%,100%", "--soak", "500ms")
	require.Equal(t, 0, code, printed)
	require.Contains(t, printed, "3 good")
	for _, name := range []string{"prod-1", "prod-2", "prod-3"} {
		require.Equal(t, 1, h.reloads(name))
		a := h.agent(name)
		require.Equal(t, "healthy", a.State)
		require.Equal(t, "APPLIED", a.RemoteConfig.Status)
		require.Contains(t, effectiveConfig(h.server, a.InstanceUID), "key: pushed")
	}
	require.Zero(t, h.reloads("stage-1"), "it is not selected")
	before := h.sink.Summary().Attributes["pushed"]["yes"]
	harness.Await(t, limit, "spans with the attribute", func() (bool, any) {
		now := h.sink.Summary().Attributes["pushed"]["yes"]
		return now > before, now
	})
	stop()
}

// A configuration that fails the dry run on one group: the plan says so, and a rollout touches none of that group.
func TestRolloutThatOneGroupCannotRun(t *testing.T) {
	t.Parallel()
	h := newHerd(t, "unruly-1", "unruly-2", "plain-1", "plain-2")
	stop := h.load()
	file := h.body(unrulyAndFine)
	code, printed := h.collie("plan", "-f", file, "--name", "new")
	require.Equal(t, 2, code, printed)
	require.Contains(t, printed, "of 4 agents, 2 accept, 2 refuse, 0 cannot tell")
	require.Contains(t, printed, "refused by 2 agents (plain-1, plain-2)", "one reason, whatever the order of the core's lists")
	require.Contains(t, printed, `'processors' unknown type: "unruly"`)

	code, printed = h.collie("config", "apply", "-f", file, "--name", "new", "--rollout", "--soak", "500ms")
	require.Equal(t, 2, code, printed)
	require.Contains(t, printed, "rolled_back")
	for _, name := range []string{"plain-1", "plain-2"} {
		require.Zero(t, h.reloads(name))
		require.NotContains(t, effectiveConfig(h.server, h.agent(name).InstanceUID), "unruly")
	}
	harness.Await(t, limit, "the others are back", func() (bool, any) {
		for _, name := range []string{"unruly-1", "unruly-2"} {
			if a := h.agent(name); a.State != "healthy" || a.RemoteConfig.DesiredHash != a.RemoteConfig.ReportedHash ||
				strings.Contains(effectiveConfig(h.server, a.InstanceUID), "unruly: {}") {
				return false, a
			}
		}
		return true, nil
	})
	stop()
}

// A configuration that starts, passes the agent's own soak, and turns unhealthy later: stopped at the canary, returned by itself.
func TestRolloutThatTurnsUnhealthy(t *testing.T) {
	t.Parallel()
	names := []string{"unruly-1", "unruly-2", "unruly-3"}
	h := newHerd(t, names...)
	stop := h.load()
	code, printed := h.collie("config", "apply", "-f", h.body(addAttribute), "--name", "new", "--rollout", "--soak", "500ms")
	require.Equal(t, 0, code, printed)
	good := h.agent("unruly-1").RemoteConfig.ReportedHash

	code, printed = h.collie("config", "apply", "-f", h.body(sickLater), "--name", "new", "--rollout", "--canary", "1", "--soak", "60s")
	require.Equal(t, 2, code, printed)
	require.Contains(t, printed, "rolled_back")
	require.Contains(t, printed, "unruly, as configured", "it says why")
	harness.Await(t, limit, "all run the good one", func() (bool, any) {
		for _, name := range names {
			if a := h.agent(name); a.State != "healthy" || a.RemoteConfig.ReportedHash != good || a.RemoteConfig.Status != "APPLIED" {
				return false, a
			}
		}
		return true, nil
	})
	var canaries []string
	for _, name := range names {
		if h.reloads(name) > 1 {
			canaries = append(canaries, name)
		}
	}
	require.Len(t, canaries, 1, "the others were never touched")
	story := strings.Join(h.timeline(canaries[0]), "\n")
	for _, chapter := range []string{"rollout_assigned", "offered", "applying", "applied", "unhealthy", "rollout_failed unhealthy", "rollout_returned", "offered", "applied"} {
		_, rest, found := strings.Cut(story, chapter)
		require.True(t, found, "%q is missing, or comes too early:\n%s", chapter, strings.Join(h.timeline(canaries[0]), "\n"))
		story = rest
	}
	stop()
}

// A Collector that is away during a rollout gets the version when it comes back.
func TestCollectorThatWasAway(t *testing.T) {
	t.Parallel()
	h := newHerd(t, "prod-1", "prod-2")
	h.collectors["prod-2"].Stop()
	harness.Await(t, limit, "it is away", func() (bool, any) { return !h.agent("prod-2").Connected, nil })
	code, printed := h.collie("config", "apply", "-f", h.body(addAttribute), "--name", "attribute", "--selector", "group=prod", "--rollout", "--soak", "200ms")
	require.Equal(t, 0, code, printed)
	require.Contains(t, printed, "1 good")
	h.collectors["prod-2"].Start()
	harness.Await(t, limit, "it runs the version", func() (bool, any) {
		a := h.agent("prod-2")
		return a.State == "healthy" && a.RemoteConfig.Status == "APPLIED" && strings.Contains(effectiveConfig(h.server, a.InstanceUID), "key: pushed"), a
	})
}
