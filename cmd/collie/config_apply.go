package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
	"github.com/collie-otel/collie/internal/fleet"
)

// candidateFlags name a configuration as it could be: what config apply saves, and plan asks about.
type candidateFlags struct {
	file, name, selector string
	priority             int
}

func (f *candidateFlags) register(cmd *cobra.Command, r *remote) {
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "`file` with the body; - is the standard input")
	flags.StringVar(&f.name, "name", "", "`name` of the configuration")
	flags.StringVar(&f.selector, "selector", "", "agents that it is for, as a label `selector` (default that of the newest version, or all)")
	flags.IntVar(&f.priority, "priority", 0, "a higher one is merged over lower ones (default that of the newest version, or 0)")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	_ = cmd.RegisterFlagCompletionFunc("name", r.complete(1, completeConfigs))
}

func (f *candidateFlags) check(c *session) error {
	if err := needs(c.cmd, "file", "name"); err != nil {
		return err
	}
	if err := errors.Join(fleet.ValidateName(f.name), checkSelector(f.selector)); err != nil {
		return c.usage(err)
	}
	if f.priority < -fleet.MaxPriority || f.priority > fleet.MaxPriority {
		return c.usage(fmt.Errorf("--priority must be from %d to %d", -fleet.MaxPriority, fleet.MaxPriority))
	}
	return nil
}

type configApplyFlags struct {
	candidateFlags
	rollout bool
	spec    rolloutFlags
}

func newConfigApplyCommand(r *remote) *cobra.Command {
	f := &configApplyFlags{}
	cmd := &cobra.Command{
		Use:   "apply -f FILE --name NAME",
		Short: "Save a version, and with --rollout bring it to the agents",
		Long: `Save a version of a configuration. No agent is touched, unless with --rollout, which begins a rollout and watches it to its end.

A version that would be like the newest one is not saved again. Exit code 2: the rollout was rolled back.`,
		Example: `  collie config apply -f gateway.yaml --name gateway --selector service.name=gateway
  collie config apply -f gateway.yaml --name gateway --rollout --canary 1 --waves 10%,50%,100%`,
		Args: noArguments,
		RunE: r.run(f.run),
	}
	f.register(cmd, r)
	cmd.Flags().BoolVar(&f.rollout, "rollout", false, "bring it to the agents, and watch that to its end")
	f.spec.register(cmd)
	outputFlag(cmd)
	return cmd
}

func (f *configApplyFlags) run(ctx context.Context, c *session, _ []string) error {
	if err := f.check(c); err != nil {
		return err
	}
	if !f.rollout {
		if name := f.spec.given(c.cmd); name != "" {
			return c.usage(fmt.Errorf("--%s is for a rollout: add --rollout", name))
		}
	}
	request, err := f.spec.request(c.cmd, f.name)
	if err != nil {
		return c.usage(err)
	}
	body, err := readInput(c.cmd, f.file)
	if err != nil {
		return err
	}
	saved, unchanged, err := f.save(ctx, c, body)
	if err != nil {
		return err
	}
	if f.rollout && unchanged && saved.ReleasedVersion == saved.Version && !f.spec.force {
		return f.report(c, saved, fmt.Sprintf("%s: unchanged, and version %d is rolled out: nothing to do", f.name, saved.Version))
	}
	if !f.rollout {
		return f.report(c, saved, savedLine(f.name, saved, unchanged))
	}
	c.say("%s", savedWord(f.name, saved, unchanged))
	request.Version = saved.Version
	return c.startRollout(ctx, request, true)
}

// report is the end where there is no rollout.
func (f *configApplyFlags) report(c *session, saved apiv1.Configuration, line string) error {
	return c.show(saved, func(palette, time.Time) string { return named(line) + "\n" })
}

func savedWord(name string, saved apiv1.Configuration, unchanged bool) string {
	if unchanged {
		return fmt.Sprintf("%s: unchanged, version %d is like this", name, saved.Version)
	}
	return fmt.Sprintf("%s: saved version %d", name, saved.Version)
}

func savedLine(name string, saved apiv1.Configuration, unchanged bool) string {
	line := savedWord(name, saved, unchanged) + "; no agent was touched"
	if saved.ReleasedVersion != saved.Version {
		line += fmt.Sprintf(": bring it to them with collie rollout start %s@%d", name, saved.Version)
	}
	return line
}

// save keeps selector and priority of the newest version where none were given, and saves nothing that is there already.
func (f *configApplyFlags) save(ctx context.Context, c *session, body string) (saved apiv1.Configuration, unchanged bool, err error) {
	newest, tag, err := c.client.Configuration(ctx, f.name)
	exists := err == nil
	if err != nil && !client.IsStatus(err, http.StatusNotFound) {
		return newest, false, err
	}
	wanted := apiv1.SaveConfiguration{Selector: f.selector, Priority: f.priority, Body: body}
	if exists && !c.cmd.Flags().Changed("selector") {
		wanted.Selector = newest.Selector
	}
	if exists && !c.cmd.Flags().Changed("priority") {
		wanted.Priority = newest.Priority
	}
	if exists && newest.Body == body && newest.Priority == wanted.Priority && sameSelector(newest.Selector, wanted.Selector) {
		return newest, true, nil
	}
	if !exists {
		tag = client.Absent
	}
	saved, err = c.client.SaveConfiguration(ctx, f.name, wanted, tag)
	return saved, false, err
}

// sameSelector compares what selectors choose, not how they are written.
func sameSelector(a, b string) bool {
	x, errX := fleet.ParseSelector(a)
	y, errY := fleet.ParseSelector(b)
	return a == b || errX == nil && errY == nil && x.String() == y.String()
}
