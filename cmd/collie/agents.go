package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
)

func newAgentsCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "See the agents of the fleet, and act on one",
		Long: `See the agents of the fleet, and act on one.

UID is an agent's instance UID, a beginning of it that no other has, or a host.name that no other has.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r := newRemote(s, cmd)
	cmd.AddCommand(
		newAgentsListCommand(r),
		r.agentCommand("get", "Show an agent", true, getAgent),
		newAgentsConfigCommand(r),
		newAgentsEventsCommand(r),
		r.agentCommand("components", "Show what an agent's binary contains", true, showComponents),
		r.agentCommand("throughput", "Show what an agent took in and sent in the last hour", true, showThroughput),
		r.agentCommand("restart", "Ask an agent to restart", false, restartAgent),
		r.agentCommand("rotate", "Give an agent a new credential", false, rotateAgent),
		r.agentCommand("forget", "Delete an agent that is away", false, forgetAgent),
	)
	return cmd
}

// agentCommand makes a command for one agent.
func (r *remote) agentCommand(name, help string, shows bool, f func(ctx context.Context, c *session, uid string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:               name + " UID",
		Short:             help,
		Args:              takes("UID"),
		ValidArgsFunction: r.complete(1, completeAgents),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			uid, err := findAgent(ctx, c.client, args[0])
			if err != nil {
				return err
			}
			return f(ctx, c, uid)
		}),
	}
	if shows {
		outputFlag(cmd)
	}
	return cmd
}

func getAgent(ctx context.Context, c *session, uid string) error {
	agent, err := c.client.Agent(ctx, uid)
	if err != nil {
		return err
	}
	return c.show(agent, func(p palette, now time.Time) string { return agentTable(agent, p, now) })
}

func showComponents(ctx context.Context, c *session, uid string) error {
	components, err := c.client.Components(ctx, uid)
	if client.IsStatus(err, http.StatusNotFound) {
		return fmt.Errorf("%s has not said what it contains: agents with the capability ReportsAvailableComponents do (%w)", uid, err)
	}
	if err != nil {
		return err
	}
	return c.show(components, func(palette, time.Time) string { return componentsTable(components) })
}

func showThroughput(ctx context.Context, c *session, uid string) error {
	series, err := c.client.Throughput(ctx, uid)
	if client.IsStatus(err, http.StatusNotFound) {
		return fmt.Errorf("no telemetry of %s: offer it own_metrics: {endpoint: self} with collie connections apply", uid)
	}
	if err != nil {
		return err
	}
	return c.show(series, func(palette, time.Time) string { return throughputTable(series) })
}

func restartAgent(ctx context.Context, c *session, uid string) error {
	if err := c.client.Restart(ctx, uid); err != nil {
		return err
	}
	return c.done("%s is asked to restart: follow it with collie agents events %s", uid, uid)
}

func rotateAgent(ctx context.Context, c *session, uid string) error {
	if err := c.client.RotateCredential(ctx, uid); err != nil {
		return err
	}
	return c.done("%s is offered a new credential: see what becomes of it with collie agents get %s", uid, uid)
}

func forgetAgent(ctx context.Context, c *session, uid string) error {
	if err := c.client.Forget(ctx, uid); err != nil {
		return err
	}
	return c.done("%s is forgotten", uid)
}

func newAgentsConfigCommand(r *remote) *cobra.Command {
	var desired bool
	cmd := r.agentCommand("config", "Print the configuration that an agent runs, or should run", true,
		func(ctx context.Context, c *session, uid string) error {
			if desired {
				return showDesired(ctx, c, uid)
			}
			text, err := c.client.EffectiveConfig(ctx, uid)
			if err != nil {
				return err
			}
			if c.format == formatYAML {
				c.format = formatTable // it is YAML
			}
			return c.show(map[string]string{"effective_config": text}, func(palette, time.Time) string { return c.verbatim(text) })
		})
	cmd.Flags().BoolVar(&desired, "desired", false, "what it should run: the configurations of this server that concern it")
	return cmd
}

func showDesired(ctx context.Context, c *session, uid string) error {
	set, err := c.client.DesiredConfig(ctx, uid)
	if err != nil {
		return err
	}
	return c.show(set, func(palette, time.Time) string {
		if len(set.Files) == 0 {
			return "# nothing: no configuration that was rolled out concerns this agent\n"
		}
		var b strings.Builder
		for i, f := range set.Files {
			if i > 0 {
				b.WriteString("---\n")
			}
			fmt.Fprintf(&b, "# %s: %s@%d\n%s", named(f.Name), named(f.Configuration), f.Version, c.verbatim(f.Body))
			if !strings.HasSuffix(f.Body, "\n") {
				b.WriteByte('\n')
			}
		}
		return b.String()
	})
}

// completeAgents offers UIDs with names for explanation.
func completeAgents(ctx context.Context, c *client.Client, text string) ([]string, error) {
	page, err := c.Agents(ctx, client.AgentQuery{Text: text, Limit: 100})
	var found []string
	for _, a := range page.Agents {
		if strings.HasPrefix(a.InstanceUID, strings.ToLower(text)) {
			found = append(found, cobra.CompletionWithDesc(a.InstanceUID, named(agentName(a))))
		} else if host := attribute(a, "host.name"); text != "" && strings.HasPrefix(host, text) {
			found = append(found, named(host))
		}
	}
	return found, err
}

// findAgent returns the UID of the one agent that the text names.
func findAgent(ctx context.Context, c *client.Client, text string) (string, error) {
	if uid, err := uuid.Parse(text); err == nil {
		return uid.String(), nil
	}
	all, err := c.AllAgents(ctx, client.AgentQuery{Text: text})
	if err != nil {
		return "", err
	}
	found := slices.DeleteFunc(all.Agents, func(a apiv1.Agent) bool {
		return !strings.HasPrefix(a.InstanceUID, strings.ToLower(text)) && attribute(a, "host.name") != text
	})
	switch len(found) {
	case 0:
		return "", fmt.Errorf("no agent has a UID that begins with %q, or this host.name: see collie agents list", text)
	case 1:
		return found[0].InstanceUID, nil
	}
	var candidates []string
	for _, a := range found {
		candidates = append(candidates, a.InstanceUID+" ("+agentName(a)+")")
	}
	return "", errors.New(text + " names " + count(len(found), "agent") + ", " + few(candidates, 5) + ": give more of the UID")
}

// agentName is what people call an agent.
func agentName(a apiv1.Agent) string {
	for _, key := range []string{"host.name", "service.instance.id"} {
		if value := attribute(a, key); value != "" {
			return value
		}
	}
	return a.InstanceUID
}

func attribute(a apiv1.Agent, key string) string {
	if value := a.IdentifyingAttributes[key]; value != "" {
		return value
	}
	return a.NonIdentifyingAttributes[key]
}
