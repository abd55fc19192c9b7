package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
)

const (
	// planWait is how long the server holds the first answer, so that most plans take one request.
	planWait  = 2 * time.Second
	planEvery = time.Second
	planDone  = "done"
)

func newPlanCommand(s streams) *cobra.Command {
	f := &candidateFlags{}
	cmd := &cobra.Command{
		Use:   "plan -f FILE --name NAME",
		Short: "Ask the agents what they would do with a configuration; nothing changes",
		Long: `Ask the agents that a configuration concerns what they would do with it. Nothing is saved, and no agent changes.

Exit code 2: at least one agent, or a policy, refuses.`,
		Example: `  collie plan -f gateway.yaml --name gateway
  collie plan -f - --name gateway --selector 'service.name=gateway,deployment.environment.name=stage' < gateway.yaml`,
		Args: noArguments,
	}
	r := newRemote(s, cmd)
	f.register(cmd, r)
	outputFlag(cmd)
	cmd.RunE = r.run(f.plan)
	return cmd
}

func (f *candidateFlags) plan(ctx context.Context, c *session, _ []string) error {
	if err := f.check(c); err != nil {
		return err
	}
	body, err := readInput(c.cmd, f.file)
	if err != nil {
		return err
	}
	request := apiv1.PlanRequest{Name: f.name, Body: body}
	if c.cmd.Flags().Changed("selector") {
		request.Selector = &f.selector
	}
	if c.cmd.Flags().Changed("priority") {
		request.Priority = &f.priority
	}
	p, err := c.awaitPlan(ctx, request)
	if err != nil {
		return err
	}
	if err := c.show(p, func(colours palette, _ time.Time) string { return planText(p, colours) }); err != nil {
		return err
	}
	if p.Refused > 0 {
		return &refusedError{fmt.Errorf("%d of %s refuse: change the file for the reasons above, or narrow --selector",
			p.Refused, count(len(p.Agents), "agent"))}
	}
	return nil
}

// awaitPlan tells of progress until the plan is done.
func (c *session) awaitPlan(ctx context.Context, request apiv1.PlanRequest) (apiv1.Plan, error) {
	p, err := c.client.Plan(ctx, request, planWait)
	if err != nil {
		return p, err
	}
	progress := c.progress()
	defer progress("")
	for p.State != planDone {
		progress(planLine(p))
		if err := pause(ctx, planEvery, nil); err != nil {
			return p, err
		}
		if p, err = c.client.GetPlan(ctx, p.ID); err != nil {
			return p, err
		}
	}
	return p, nil
}

// progress returns what shows a line of progress: in place on a terminal, and elsewhere once for each change. The empty line
// takes it away.
func (c *session) progress() func(line string) {
	if _, terminal := terminalOf(c.s.err); terminal {
		return func(line string) { _, _ = io.WriteString(c.s.err, eraseLine+line) }
	}
	last := ""
	return func(line string) {
		if line != "" && line != last {
			c.say("%s", line)
		}
		last = line
	}
}
