package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
)

const (
	usualEvents = 50
	eventsPage  = 500
)

func newAuditCommand(s streams) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, the newest first",
		Args:  noArguments,
	}
	r := newRemote(s, cmd)
	cmd.RunE = r.run(func(ctx context.Context, c *session, _ []string) error {
		return c.showEvents(ctx, limit, "", c.client.Audit)
	})
	limitFlag(cmd, &limit)
	outputFlag(cmd)
	return cmd
}

func newAgentsEventsCommand(r *remote) *cobra.Command {
	var limit int
	cmd := r.agentCommand("events", "Show what happened to an agent, the newest first", true,
		func(ctx context.Context, c *session, uid string) error {
			return c.showEvents(ctx, limit, uid, func(ctx context.Context, n int, cursor string) (apiv1.Events, error) {
				return c.client.AgentEvents(ctx, uid, n, cursor)
			})
		})
	limitFlag(cmd, &limit)
	return cmd
}

func newRolloutEventsCommand(r *remote) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:               "events ID",
		Short:             "Show what happened in a rollout, the newest first",
		Args:              takes("ID"),
		ValidArgsFunction: r.complete(1, completeRollouts),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			return c.showEvents(ctx, limit, args[0], func(ctx context.Context, n int, cursor string) (apiv1.Events, error) {
				return c.client.RolloutEvents(ctx, args[0], n, cursor)
			})
		}),
	}
	limitFlag(cmd, &limit)
	outputFlag(cmd)
	return cmd
}

// limitFlag checks its value before anything is sent.
func limitFlag(cmd *cobra.Command, limit *int) {
	cmd.Flags().IntVar(limit, "limit", usualEvents, "this many at most; 0 is all")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 0 {
			return &usageError{cmd.CommandPath(), errors.New("--limit must be 0 or more")}
		}
		return nil
	}
}

// showEvents goes through the pages until it has as many as wanted. In JSON and YAML the cursor of the last page stays. Of is the agent
// or rollout that all of them are about, empty for none.
func (c *session) showEvents(ctx context.Context, limit int, of string,
	fetch func(ctx context.Context, limit int, cursor string) (apiv1.Events, error),
) error {
	all := apiv1.Events{Events: []apiv1.Event{}}
	for cursor := ""; ; cursor = all.NextCursor {
		size := eventsPage
		if limit > 0 {
			size = min(size, limit-len(all.Events))
		}
		page, err := fetch(ctx, size, cursor)
		if err != nil {
			return err
		}
		all.Events, all.NextCursor = append(all.Events, page.Events...), page.NextCursor
		if page.NextCursor == "" || page.NextCursor == cursor || len(page.Events) == 0 || limit > 0 && len(all.Events) >= limit {
			break
		}
	}
	return c.show(all, func(palette, time.Time) string { return eventsTable(all.Events, of) })
}

// eventsTable has times in UTC: a timeline is compared with other ones.
func eventsTable(events []apiv1.Event, of string) string {
	if len(events) == 0 {
		return "nothing yet\n"
	}
	t := newTable("TIME", "EVENT", "ABOUT", "BY", "MESSAGE")
	for _, e := range events {
		actor := orDash(e.Actor)
		if e.Actor != "" && e.Actor == e.Agent {
			actor = "the agent"
		}
		t.row(e.Time.UTC().Format(time.DateTime), named(e.Kind), eventSubject(e, of), actor, cut(e.Message, maxErrorText))
	}
	return t.String()
}

// eventSubject names what an event is about, besides what all of them are about.
func eventSubject(e apiv1.Event, of string) string {
	text := ""
	add := func(part string) {
		if text != "" {
			text += " "
		}
		text += named(part)
	}
	if e.Agent != "" && e.Agent != of {
		add(e.Agent)
	}
	switch {
	case e.Configuration != "" && e.Version > 0:
		add(fmt.Sprintf("%s@%d", e.Configuration, e.Version))
	case e.Configuration != "":
		add(e.Configuration)
	case e.Hash != "":
		add(short(e.Hash))
	}
	if e.Rollout != "" && e.Rollout != of {
		add(e.Rollout)
	}
	return orDash(text)
}
