package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
)

func newConnectionsCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "Offer connection settings to agents: the server, and where own telemetry goes",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r := newRemote(s, cmd)
	list := &cobra.Command{
		Use: "list", Short: "List the offers, their secrets redacted", Args: noArguments,
		RunE: r.run(func(ctx context.Context, c *session, _ []string) error {
			all, err := c.client.Connections(ctx)
			if err != nil {
				return err
			}
			return c.show(all, func(_ palette, now time.Time) string { return connectionsTable(all.Connections, now) })
		}),
	}
	outputFlag(list)
	remove := &cobra.Command{
		Use: "delete NAME", Short: "Take an offer away", Args: takes("NAME"), ValidArgsFunction: r.complete(1, completeConnections),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			if err := c.client.DeleteConnection(ctx, args[0]); err != nil {
				return err
			}
			return c.done("connection %s is deleted", args[0])
		}),
	}
	cmd.AddCommand(newConnectionsApplyCommand(r), list, remove)
	return cmd
}

func newConnectionsApplyCommand(r *remote) *cobra.Command {
	var file, name string
	cmd := &cobra.Command{
		Use:   "apply -f FILE --name NAME",
		Short: "Make or replace an offer",
		Long: `Make or replace an offer. FILE is YAML or JSON:

  selector: deployment.environment.name=prod
  priority: 10
  opamp: {endpoint: "wss://collie.example.com/v1/opamp", heartbeat_interval: 30s, headers: {}, ca: ""}
  own_metrics: {endpoint: self}      # or a URL of OTLP/HTTP; own_traces and own_logs likewise
  other: {backend: {endpoint: "https://otlp.example.com", headers: {Authorization: "..."}}}

A header's value that is "[redacted]" stays as it is on the server.`,
		Args: noArguments,
		RunE: r.run(func(ctx context.Context, c *session, _ []string) error {
			if err := needs(c.cmd, "file", "name"); err != nil {
				return err
			}
			offer, err := readConnection(c.cmd, file, name)
			if err != nil {
				return err
			}
			if err := c.client.SaveConnection(ctx, offer); err != nil {
				return err
			}
			return c.done("connection %s is offered to %s", name, selectorText(offer.Selector))
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` with the offer; - is the standard input")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the offer")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml", "json")
	_ = cmd.RegisterFlagCompletionFunc("name", r.complete(1, completeConnections))
	return cmd
}

// readConnection refuses keys that it does not know: a mistyped one would be a setting that is missing.
func readConnection(cmd *cobra.Command, file, name string) (apiv1.Connection, error) {
	var offer apiv1.Connection
	text, err := readInput(cmd, file)
	if err != nil {
		return offer, err
	}
	if err := yaml.UnmarshalStrict([]byte(text), &offer); err != nil {
		return offer, fmt.Errorf("--file: %s", strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: "))
	}
	if offer.Name != "" && offer.Name != name {
		return offer, fmt.Errorf("--file: it is named %q there, and %q by --name: make them the same", offer.Name, name)
	}
	if err := checkSelector(offer.Selector); err != nil {
		return offer, errors.New("--file: " + strings.TrimPrefix(err.Error(), "--"))
	}
	offer.Name = name
	return offer, nil
}

func completeConnections(ctx context.Context, c *client.Client, text string) ([]string, error) {
	all, err := c.Connections(ctx)
	var found []string
	for _, connection := range all.Connections {
		if strings.HasPrefix(connection.Name, text) {
			found = append(found, named(connection.Name))
		}
	}
	return found, err
}

func connectionsTable(all []apiv1.Connection, now time.Time) string {
	if len(all) == 0 {
		return "no connections are offered\n"
	}
	t := newTable("NAME", "PRIORITY", "SELECTOR", "OFFERS", "CHANGED")
	for _, c := range all {
		t.row(named(c.Name), strconv.Itoa(c.Priority), selectorText(c.Selector), connectionParts(c), age(c.UpdatedAt, now))
	}
	return t.String()
}

// connectionParts names what is offered, with the places but nothing secret.
func connectionParts(c apiv1.Connection) string {
	var parts []string
	if c.OpAMP != nil {
		what := c.OpAMP.Endpoint
		if c.OpAMP.HeartbeatInterval != "" {
			what = strings.TrimSpace(what + " every " + c.OpAMP.HeartbeatInterval)
		}
		parts = append(parts, "opamp "+orDash(what))
	}
	for _, own := range []struct {
		name string
		to   *apiv1.Destination
	}{{"own_metrics", c.OwnMetrics}, {"own_traces", c.OwnTraces}, {"own_logs", c.OwnLogs}} {
		if own.to != nil {
			parts = append(parts, own.name+" "+orDash(own.to.Endpoint))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Other)) {
		parts = append(parts, named(name)+" "+orDash(c.Other[name].Endpoint))
	}
	return orDash(strings.Join(parts, ", "))
}
