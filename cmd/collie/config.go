package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
	"github.com/collie-otel/collie/internal/fleet"
)

func newConfigCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Keep the configurations of the fleet, version by version",
		Long: `Keep the configurations of the fleet, version by version.

To save a version touches no agent: collie rollout start brings it to them. A version has a body, a selector and a priority.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r := newRemote(s, cmd)
	list := r.configCommand("list", "List configurations", nil, listConfigs)
	list.Args = noArguments
	outputFlag(list)
	get := r.configCommand("get NAME[@V]", "Print a version, the newest unless named", takes("NAME"), getConfig)
	outputFlag(get)
	history := r.configCommand("history NAME", "List the versions of a configuration", takes("NAME"), configHistory)
	outputFlag(history)
	diff := r.configCommand("diff NAME@V1 [NAME@V2]", "Show how one version becomes another, the newest unless named",
		takes("NAME@V1", "[NAME@V2]"), diffConfig)
	diff.ValidArgsFunction = r.complete(2, completeConfigs)
	cmd.AddCommand(newConfigApplyCommand(r), list, get, history, diff,
		r.configCommand("delete NAME", "Delete a configuration and take it from the agents that have it", takes("NAME"), deleteConfig))
	return cmd
}

func (r *remote) configCommand(use, help string, args cobra.PositionalArgs,
	f func(ctx context.Context, c *session, args []string) error,
) *cobra.Command {
	return &cobra.Command{Use: use, Short: help, Args: args, ValidArgsFunction: r.complete(1, completeConfigs), RunE: r.run(f)}
}

func listConfigs(ctx context.Context, c *session, _ []string) error {
	all, err := c.client.Configurations(ctx)
	if err != nil {
		return err
	}
	return c.show(all, func(_ palette, now time.Time) string { return configsTable(all.Configurations, now) })
}

// getConfig writes the body byte for byte, and what belongs to it where it does not mix with it.
func getConfig(ctx context.Context, c *session, args []string) error {
	name, number, err := parseVersion(args[0])
	if err != nil {
		return c.usage(err)
	}
	var document any
	var version apiv1.Version
	if number == 0 {
		newest, _, err := c.client.Configuration(ctx, name)
		if err != nil {
			return err
		}
		document, version = newest, newestVersion(newest)
	} else {
		if version, err = c.client.Version(ctx, name, number); err != nil {
			return err
		}
		document = version
	}
	if c.format != formatTable {
		return c.show(document, nil)
	}
	_, _ = fmt.Fprintln(c.s.err, versionLine(version, time.Now()))
	_, err = io.WriteString(c.s.out, c.verbatim(version.Body))
	return err
}

// newestVersion is the newest version of a configuration by itself.
func newestVersion(c apiv1.Configuration) apiv1.Version {
	return apiv1.Version{
		Configuration: c.Name, Version: c.Version, Selector: c.Selector, Priority: c.Priority, Body: c.Body, Hash: c.Hash,
		Author: c.Author, CreatedAt: c.UpdatedAt, Released: c.ReleasedVersion == c.Version,
	}
}

func configHistory(ctx context.Context, c *session, args []string) error {
	if err := fleet.ValidateName(args[0]); err != nil {
		return c.usage(err)
	}
	all, err := c.client.Versions(ctx, args[0])
	if err != nil {
		return err
	}
	return c.show(all, func(_ palette, now time.Time) string { return versionsTable(all.Versions, now) })
}

func diffConfig(ctx context.Context, c *session, args []string) error {
	name, from, err := parseVersion(args[0])
	if err == nil && from == 0 {
		err = fmt.Errorf("%s: name the version to begin with, as %s@1", name, name)
	}
	to := 0
	if err == nil && len(args) > 1 {
		var second string
		if second, to, err = parseVersion(args[1]); err == nil && second != name {
			err = errors.New("want two versions of one configuration")
		}
	}
	if err != nil {
		return c.usage(err)
	}
	if to == 0 {
		newest, _, err := c.client.Configuration(ctx, name)
		if err != nil {
			return err
		}
		to = newest.Version
	}
	text, err := c.client.Diff(ctx, name, from, to)
	if err != nil {
		return err
	}
	if strings.TrimSpace(text) == "" {
		c.say("%s@%d and %s@%d have the same body", name, from, name, to)
		return nil
	}
	_, err = io.WriteString(c.s.out, c.palette().diff(text))
	return err
}

func deleteConfig(ctx context.Context, c *session, args []string) error {
	if err := fleet.ValidateName(args[0]); err != nil {
		return c.usage(err)
	}
	if err := c.client.DeleteConfiguration(ctx, args[0]); err != nil {
		return err
	}
	return c.done("%s is deleted, and taken from the agents that have it", args[0])
}

func completeConfigs(ctx context.Context, c *client.Client, text string) ([]string, error) {
	all, err := c.Configurations(ctx)
	var found []string
	name, _, versioned := strings.Cut(text, "@")
	for _, configuration := range all.Configurations {
		switch {
		case versioned && configuration.Name == name:
			for v := configuration.Version; v > 0; v-- {
				found = append(found, fmt.Sprintf("%s@%d", named(name), v))
			}
		case !versioned && strings.HasPrefix(configuration.Name, text):
			found = append(found, named(configuration.Name))
		}
	}
	return found, err
}
