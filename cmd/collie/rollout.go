package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
	"github.com/collie-otel/collie/internal/fleet"
)

func newRolloutCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Bring versions of configurations to the agents, in waves",
		Long: `Bring versions of configurations to the agents, in waves. When more agents fail than --max-failures allows, those that
have the version get the one before it again.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r := newRemote(s, cmd)
	list := &cobra.Command{Use: "list", Short: "List rollouts, the newest first", Args: noArguments, RunE: r.run(listRollouts)}
	outputFlag(list)
	cmd.AddCommand(
		newRolloutStartCommand(r),
		newRolloutStatusCommand(r),
		newRolloutEventsCommand(r),
		r.rolloutCommand("pause", "Give the version to no more agents for now", (*client.Client).PauseRollout),
		r.rolloutCommand("resume", "Go on with a paused rollout", (*client.Client).ResumeRollout),
		r.rolloutCommand("abort", "End a rollout, and give its agents the version before it", (*client.Client).AbortRollout),
		list,
	)
	return cmd
}

// rolloutCommand makes a command that changes the state of a rollout.
func (r *remote) rolloutCommand(name, help string,
	act func(c *client.Client, ctx context.Context, id string) (apiv1.Rollout, error),
) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " ID", Short: help, Args: takes("ID"), ValidArgsFunction: r.complete(1, completeRollouts),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			rollout, err := act(c.client, ctx, args[0])
			if err != nil {
				return err
			}
			return c.show(rollout, func(palette, time.Time) string { return rolloutLine(rollout) + "\n" })
		}),
	}
	outputFlag(cmd)
	return cmd
}

func listRollouts(ctx context.Context, c *session, _ []string) error {
	all, err := c.client.Rollouts(ctx)
	if err != nil {
		return err
	}
	return c.show(all, func(p palette, now time.Time) string { return rolloutsTable(all.Rollouts, p, now) })
}

func completeRollouts(ctx context.Context, c *client.Client, text string) ([]string, error) {
	all, err := c.Rollouts(ctx)
	var found []string
	for _, rollout := range all.Rollouts {
		if strings.HasPrefix(rollout.ID, text) {
			about := fmt.Sprintf("%s@%d %s", rollout.Configuration, rollout.Version, rollout.State)
			found = append(found, cobra.CompletionWithDesc(named(rollout.ID), named(about)))
		}
	}
	return found, err
}

// rolloutFlags say how a version goes out.
type rolloutFlags struct {
	canary        string
	waves         []string
	soak, timeout time.Duration
	maxFailures   int
	force         bool
}

// names are those of the flags, for commands where they depend on another one.
func (f *rolloutFlags) names() []string {
	return []string{"canary", "waves", "soak", "timeout", "max-failures", "force"}
}

func (f *rolloutFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.canary, "canary", "", "first give it to so many agents, a `number` or a percentage")
	flags.StringSliceVar(&f.waves, "waves", nil, "`percentages` of the agents that have it at the end of each wave (default 100%)")
	flags.DurationVar(&f.soak, "soak", 0, "how long a wave must stay good before the next (default 30s)")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long an agent may take to apply it (default 5m)")
	flags.IntVar(&f.maxFailures, "max-failures", 0, "how many agents may fail before all get the version before it again")
	flags.BoolVar(&f.force, "force", false, "offer it also to agents on which the same content failed before")
}

// given is the first of the flags that was given, empty for none.
func (f *rolloutFlags) given(cmd *cobra.Command) string {
	for _, name := range f.names() {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// request checks the flags. What was not given is left to the server.
func (f *rolloutFlags) request(cmd *cobra.Command, name string) (apiv1.RolloutRequest, error) {
	r := apiv1.RolloutRequest{Configuration: name, MaxFailures: f.maxFailures, Force: f.force}
	spec := fleet.RolloutSpec{Soak: f.soak, Timeout: f.timeout, MaxFailures: f.maxFailures}
	var err error
	if spec.Canary, err = fleet.ParseAmount(f.canary); err != nil {
		return r, fmt.Errorf("--canary: %w", err)
	}
	if f.canary != "" {
		r.Canary, _ = json.Marshal(f.canary) // a string has no error
	}
	for _, wave := range f.waves {
		percent, err := strconv.Atoi(strings.TrimSuffix(wave, "%"))
		if err != nil {
			return r, fmt.Errorf("--waves: %.50q: want percentages, like 10%%,50%%,100%%", wave)
		}
		spec.Waves = append(spec.Waves, percent)
		r.Waves = append(r.Waves, strconv.Itoa(percent)+"%")
	}
	for flag, target := range map[string]**string{"soak": &r.Soak, "timeout": &r.Timeout} {
		if cmd.Flags().Changed(flag) {
			text := cmd.Flags().Lookup(flag).Value.String()
			*target = &text
		}
	}
	return r, spec.Validate()
}

func newRolloutStartCommand(r *remote) *cobra.Command {
	f := &rolloutFlags{}
	var watch bool
	cmd := &cobra.Command{
		Use:   "start NAME[@V]",
		Short: "Begin a rollout of a version, the newest unless named",
		Example: `  collie rollout start gateway --canary 1 --waves 10%,50%,100% --soak 2m
  collie rollout start gateway@3   # back to version 3`,
		Args:              takes("NAME"),
		ValidArgsFunction: r.complete(1, completeConfigs),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			name, version, err := parseVersion(args[0])
			if err != nil {
				return c.usage(err)
			}
			request, err := f.request(c.cmd, name)
			if err != nil {
				return c.usage(err)
			}
			request.Version = version
			return c.startRollout(ctx, request, watch)
		}),
	}
	f.register(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "watch it to its end")
	outputFlag(cmd)
	return cmd
}

func (c *session) startRollout(ctx context.Context, request apiv1.RolloutRequest, watch bool) error {
	rollout, err := c.client.StartRollout(ctx, request)
	if err != nil {
		return err
	}
	if watch {
		return c.watchRollout(ctx, rollout.ID)
	}
	return c.show(rollout, func(palette, time.Time) string {
		return fmt.Sprintf("%s; watch it with collie rollout status %s --watch\n", rolloutLine(rollout), named(rollout.ID))
	})
}

func newRolloutStatusCommand(r *remote) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [ID]",
		Short: "Show a rollout, the newest unless named",
		Long: `Show a rollout, the newest unless named.

With --watch it goes on until the rollout ends: exit code 0 when it succeeded, 2 when it was rolled back, 1 when it was aborted.`,
		Args:              takes("[ID]"),
		ValidArgsFunction: r.complete(1, completeRollouts),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			id, err := c.rolloutID(ctx, args)
			if err != nil {
				return err
			}
			if watch {
				return c.watchRollout(ctx, id)
			}
			rollout, err := c.client.Rollout(ctx, id)
			if err != nil {
				return err
			}
			return c.show(rollout, func(p palette, now time.Time) string { return rolloutText(rollout, p, now) })
		}),
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "watch it to its end")
	outputFlag(cmd)
	return cmd
}

func (c *session) rolloutID(ctx context.Context, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	all, err := c.client.Rollouts(ctx)
	if err != nil {
		return "", err
	}
	if len(all.Rollouts) == 0 {
		return "", errors.New("there is no rollout yet: begin one with collie rollout start NAME")
	}
	return all.Rollouts[0].ID, nil
}
