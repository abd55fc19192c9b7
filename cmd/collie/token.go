package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/client"
)

func newTokenCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make and revoke the tokens that agents and people show the server",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r := newRemote(s, cmd)
	list := &cobra.Command{Use: "list", Short: "List tokens, without their secrets", Args: noArguments, RunE: r.run(listTokens)}
	outputFlag(list)
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Make a token invalid", Args: takes("ID"), ValidArgsFunction: r.complete(1, completeTokens),
		RunE: r.run(func(ctx context.Context, c *session, args []string) error {
			if err := c.client.RevokeToken(ctx, args[0]); err != nil {
				return err
			}
			return c.done("%s is revoked", args[0])
		}),
	}
	cmd.AddCommand(newTokenCreateCommand(r), list, revoke)
	return cmd
}

// roles in the order of what they may do.
var roles = []string{apiv1.RoleAgent, apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin}

type tokenFlags struct {
	role, expires string
	uses          int
}

func newTokenCreateCommand(r *remote) *cobra.Command {
	f := &tokenFlags{}
	cmd := &cobra.Command{
		Use:   "create --role ROLE",
		Short: "Make a token, and print its secret once",
		Example: `  collie token create --role agent --expires 30d --uses 100
  collie token create --role viewer -o json`,
		Args: noArguments,
		RunE: r.run(f.run),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.role, "role", "", "agent (to enrol agents), viewer, operator or admin")
	flags.StringVar(&f.expires, "expires", "", "valid this long, like 12h or 30d (default for ever)")
	flags.IntVar(&f.uses, "uses", 0, "how many agents may enrol with it (default without limit)")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	outputFlag(cmd)
	return cmd
}

func (f *tokenFlags) run(ctx context.Context, c *session, _ []string) error {
	request, err := f.request(c.cmd)
	if err != nil {
		return c.usage(err)
	}
	token, err := c.client.CreateToken(ctx, request)
	if err != nil {
		return err
	}
	if err := c.show(token, func(_ palette, now time.Time) string { return tokenTable(token, now) }); err != nil {
		return err
	}
	if c.format == formatTable {
		c.say("keep the secret now: it is not shown again")
	}
	return nil
}

func (f *tokenFlags) request(cmd *cobra.Command) (apiv1.TokenRequest, error) {
	request := apiv1.TokenRequest{Role: f.role, Expires: f.expires}
	if !slices.Contains(roles, f.role) {
		return request, fmt.Errorf("--role must be one of %s, got %q", strings.Join(roles, ", "), f.role)
	}
	if cmd.Flags().Changed("uses") {
		if f.uses < 1 || f.role != apiv1.RoleAgent {
			return request, errors.New("--uses must be 1 or more, and is for the role agent")
		}
		request.Uses = &f.uses
	}
	if f.expires != "" {
		return request, checkExpiry(f.expires)
	}
	return request, nil
}

func listTokens(ctx context.Context, c *session, _ []string) error {
	all, err := c.client.Tokens(ctx)
	if err != nil {
		return err
	}
	return c.show(all, func(_ palette, now time.Time) string { return tokensTable(all.Tokens, now) })
}

func completeTokens(ctx context.Context, c *client.Client, text string) ([]string, error) {
	all, err := c.Tokens(ctx)
	var found []string
	for _, token := range all.Tokens {
		if strings.HasPrefix(token.ID, text) {
			found = append(found, cobra.CompletionWithDesc(named(token.ID), named(token.Role)))
		}
	}
	return found, err
}

func tokenTable(token apiv1.Token, now time.Time) string {
	t := newTable()
	t.row("id", named(token.ID))
	t.row("secret", orDash(token.Secret))
	t.row("role", orDash(token.Role))
	t.row("uses", usesText(token))
	t.row("expires", expiryText(token.ExpiresAt, now))
	return t.String()
}

func tokensTable(tokens []apiv1.Token, now time.Time) string {
	if len(tokens) == 0 {
		return "no tokens\n"
	}
	t := newTable("ID", "ROLE", "USES LEFT", "EXPIRES", "CREATED", "AGENT")
	for _, token := range tokens {
		t.row(named(token.ID), orDash(token.Role), usesText(token), expiryText(token.ExpiresAt, now), age(token.CreatedAt, now),
			orDash(token.Agent))
	}
	return t.String()
}

func usesText(token apiv1.Token) string {
	if token.Uses == nil {
		return "no limit"
	}
	return strconv.Itoa(*token.Uses)
}

func expiryText(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "never"
	case !at.After(now):
		return "expired"
	}
	return "in " + age(now, at)
}
