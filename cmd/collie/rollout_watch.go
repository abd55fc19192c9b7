package main

import (
	"context"
	"fmt"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

// watchRollout shows a rollout to its end: redrawn in place where the result is a table on a terminal, and elsewhere one line for
// each change. Then it writes the result.
func (c *session) watchRollout(ctx context.Context, id string) error {
	draw, end := c.lineByLine(), func() {}
	if terminal, ok := terminalOf(c.s.out); ok && c.format == formatTable {
		screen := &screen{w: c.s.out, height: func() int { return terminalHeight(terminal) }}
		draw = func(r apiv1.Rollout) { screen.draw(rolloutText(r, c.palette(), time.Now())) }
		end = func() { screen.draw("") }
	}
	var last apiv1.Rollout
	err := c.follow(ctx, []string{"rollout"}, func() (bool, error) {
		rollout, err := c.client.Rollout(ctx, id)
		if err != nil {
			return false, err
		}
		last = rollout
		draw(rollout)
		return fleet.RolloutState(rollout.State).Final(), nil
	})
	if ctx.Err() != nil {
		return fmt.Errorf("no longer watching: the rollout goes on; "+
			"see it with collie rollout status %s, end it with collie rollout abort %s", id, id)
	}
	if err != nil {
		return err
	}
	end()
	if err := c.show(last, func(p palette, now time.Time) string { return rolloutText(last, p, now) }); err != nil {
		return err
	}
	return rolloutVerdict(last)
}

func (c *session) lineByLine() func(apiv1.Rollout) {
	last := ""
	return func(r apiv1.Rollout) {
		if line := rolloutLine(r); line != last {
			c.say("%s", line)
			last = line
		}
	}
}

// rolloutVerdict is an error unless the rollout succeeded.
func rolloutVerdict(r apiv1.Rollout) error {
	switch fleet.RolloutState(r.State) {
	case fleet.RolloutDone:
		return nil
	case fleet.RolloutTakenBack:
		return &refusedError{fmt.Errorf("%s was rolled back: %s; mend it, try it with collie plan, and apply it again, or with --force if the cause was elsewhere",
			rolloutSubject(r), orDash(oneText(r.Message)))}
	}
	return fmt.Errorf("%s was aborted: its agents get what they had before", rolloutSubject(r))
}
