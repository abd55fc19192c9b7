package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
)

func newPackagesCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "packages",
		Short: "Offer executables to agents",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r := newRemote(s, cmd)
	list := &cobra.Command{
		Use: "list", Short: "List what can be offered, and what is", Args: noArguments,
		RunE: r.run(func(ctx context.Context, c *session, _ []string) error {
			all, err := c.client.Packages(ctx)
			if err != nil {
				return err
			}
			return c.show(all, func(_ palette, now time.Time) string { return packagesText(all, now) })
		}),
	}
	outputFlag(list)
	withdraw := &cobra.Command{
		Use: "withdraw NAME", Short: "Take an offer away", Args: takes("NAME"), ValidArgsFunction: r.complete(1, completeOffers),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			if err := c.client.DeletePackageOffer(ctx, args[0]); err != nil {
				return err
			}
			return c.done("offer %s is withdrawn", args[0])
		}),
	}
	cmd.AddCommand(list, newPackagesOfferCommand(r), withdraw)
	return cmd
}

func newPackagesOfferCommand(r *remote) *cobra.Command {
	offer := apiv1.PackageOffer{}
	cmd := &cobra.Command{
		Use:               "offer NAME --version V --selector S",
		Short:             "Make or replace an offer: agents of the selector are to run this version",
		Args:              takes("NAME"),
		ValidArgsFunction: r.complete(1, completeOffers),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			if err := needs(c.cmd, "version"); err != nil {
				return err
			}
			if !c.cmd.Flags().Changed("selector") {
				return c.usage(errors.New(`needs --selector; --selector "" is all agents`))
			}
			if err := checkSelector(offer.Selector); err != nil {
				return c.usage(err)
			}
			offer.Name = args[0]
			if err := c.client.SavePackageOffer(ctx, offer); err != nil {
				return err
			}
			return c.done("offer %s: version %s to %s", offer.Name, offer.Version, selectorText(offer.Selector))
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&offer.Version, "version", "", "`version` to run")
	flags.StringVar(&offer.Selector, "selector", "", "agents to offer it to, as a label `selector`")
	flags.IntVar(&offer.Priority, "priority", 0, "of two offers to an agent, the higher one holds")
	return cmd
}

func completeOffers(ctx context.Context, c *client.Client, text string) ([]string, error) {
	all, err := c.Packages(ctx)
	var found []string
	for _, offer := range all.Offers {
		if strings.HasPrefix(offer.Name, text) {
			found = append(found, named(offer.Name))
		}
	}
	return found, err
}

func packagesText(all apiv1.Packages, now time.Time) string {
	text := "no packages\n"
	if len(all.Packages) > 0 {
		t := newTable("PACKAGE", "VERSION", "PLATFORMS")
		for _, p := range all.Packages {
			t.row(named(p.Name), orDash(p.Version), orDash(strings.Join(p.Platforms, ", ")))
		}
		text = t.String()
	}
	if len(all.Offers) == 0 {
		return text + "\nno offers\n"
	}
	t := newTable("OFFER", "VERSION", "PRIORITY", "SELECTOR", "CHANGED")
	for _, o := range all.Offers {
		t.row(named(o.Name), orDash(o.Version), strconv.Itoa(o.Priority), selectorText(o.Selector), age(o.UpdatedAt, now))
	}
	return text + "\n" + t.String()
}
