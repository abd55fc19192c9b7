package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
	"github.com/collie-otel/collie/internal/fleet"
)

type agentsListFlags struct {
	query client.AgentQuery
	watch bool
}

func newAgentsListCommand(r *remote) *cobra.Command {
	f := &agentsListFlags{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List agents with their states",
		Example: `  collie agents list -l 'deployment.environment.name in (prod,stage),!legacy'
  collie agents list --state unhealthy --watch
  collie agents list -q web-1 -o json`,
		Args: noArguments,
		RunE: r.run(f.run),
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.query.Selector, "selector", "l", "", "only agents whose attributes match this label `selector`")
	flags.BoolVar(&f.query.Hidden, "hidden", false, "also agents that have been away for long")
	flags.StringVar(&f.query.State, "state", "", "only agents of this `state`")
	flags.StringVarP(&f.query.Text, "query", "q", "", "only agents with this `text` in their UID or attributes")
	flags.BoolVarP(&f.watch, "watch", "w", false, "go on until Ctrl-C")
	outputFlag(cmd)
	states := []string{"disconnected", "config_failed", "unhealthy", "pending", "drifted", "healthy"}
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (f *agentsListFlags) run(ctx context.Context, c *session, _ []string) error {
	if err := checkSelector(f.query.Selector); err != nil {
		return c.usage(err)
	}
	if f.query.State != "" {
		if _, err := fleet.ParseState(f.query.State); err != nil {
			return c.usage(fmt.Errorf("--state: %w", err))
		}
	}
	if f.watch {
		return f.follow(ctx, c)
	}
	all, err := c.client.AllAgents(ctx, f.query)
	if err != nil {
		return err
	}
	if err := c.show(all, func(p palette, now time.Time) string { return agentsTable(all.Agents, p, now) }); err != nil {
		return err
	}
	if c.format == formatTable {
		_, _ = fmt.Fprintln(c.s.err, agentsLine(all.Agents)+f.noneNote(all.Agents))
	}
	return nil
}

// noneNote says why there may be no agents.
func (f *agentsListFlags) noneNote(agents []apiv1.Agent) string {
	switch {
	case len(agents) > 0:
		return ""
	case f.query.Selector+f.query.State+f.query.Text != "":
		return " match"
	case f.query.Hidden:
		return ": connect one as configs/managed-agent.yaml does"
	}
	return ": connect one as configs/managed-agent.yaml does; --hidden shows those that have been away for long"
}

// follow redraws the table on a terminal, and writes a line for each change elsewhere. Ctrl-C is how it ends.
func (f *agentsListFlags) follow(ctx context.Context, c *session) error {
	if c.format != formatTable {
		return c.usage(errors.New("--watch shows tables only: leave out --output"))
	}
	draw := f.lines(c)
	if terminal, ok := terminalOf(c.s.out); ok {
		screen := &screen{w: c.s.out, height: func() int { return terminalHeight(terminal) }}
		draw = func(agents []apiv1.Agent) {
			screen.draw(agentsLine(agents) + "\n" + agentsTable(agents, c.palette(), time.Now()))
		}
	}
	err := c.follow(ctx, []string{"agent"}, func() (bool, error) {
		all, err := c.client.AllAgents(ctx, f.query)
		if err == nil {
			draw(all.Agents)
		}
		return false, err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// lines writes a line for each agent that came, went or changed its state.
func (f *agentsListFlags) lines(c *session) func([]apiv1.Agent) {
	known := map[string]string{}
	return func(agents []apiv1.Agent) {
		now := map[string]string{}
		for _, a := range agents {
			now[a.InstanceUID] = a.State
			if before := known[a.InstanceUID]; before != a.State {
				_ = c.done("%s", agentChange(a, before))
			}
		}
		for uid, state := range known {
			if now[uid] == "" {
				_ = c.done("%s  %s -> not in this list", uid, state)
			}
		}
		known = now
	}
}
