package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/client"
	"github.com/collie-otel/collie/internal/datadir"
)

// The environment of commands that talk to the server.
const (
	serverVariable = "COLLIE_SERVER"
	tokenVariable  = "COLLIE_TOKEN"
	caVariable     = "COLLIE_CA_FILE"
)

// remote is how commands reach the server: the flags that all of them share.
type remote struct {
	s                     streams
	server, token, caFile string
	plaintextToken        bool
}

// newRemote registers the flags on a command and those below it.
func newRemote(s streams, parent *cobra.Command) *remote {
	r := &remote{s: s}
	flags := parent.PersistentFlags()
	flags.StringVar(&r.server, "server", "", "`URL` of the server (default $"+serverVariable+" or "+client.DefaultServer+")")
	flags.StringVar(&r.token, "token", "", "token to use (default $"+tokenVariable+", or the admin token of a server on this machine)")
	flags.StringVar(&r.caFile, "ca-file", "", "`file` of the certificates to trust, in PEM (default $"+caVariable+" or the system's)")
	flags.BoolVar(&r.plaintextToken, "plaintext-token", false, "send the token over plain http to another machine, too")
	return r
}

// options reads the admin token of this machine's server only for a server on this machine.
func (r *remote) options() client.Options {
	o := client.Options{Server: r.server, Token: r.token, CAFile: r.caFile, PlaintextToken: r.plaintextToken}
	if o.Server == "" {
		o.Server = os.Getenv(serverVariable)
	}
	if o.Token == "" {
		o.Token = os.Getenv(tokenVariable)
	}
	if o.CAFile == "" {
		o.CAFile = os.Getenv(caVariable)
	}
	if o.Token == "" && client.IsLoopback(o.Server) {
		if content, err := os.ReadFile(adminToken()); err == nil {
			o.Token = strings.TrimSpace(string(content))
		}
	}
	return o
}

func adminToken() string { return filepath.Join(datadir.Default(), datadir.AdminToken) }

// session is one run of a command that talks to the server.
type session struct {
	cmd    *cobra.Command
	client *client.Client
	s      streams
	format string
	// tokenless says that no token was found.
	tokenless bool
}

// run makes a command of f: it checks -o where there is one, and says what to do about errors.
func (r *remote) run(f func(ctx context.Context, c *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c := &session{cmd: cmd, s: r.s, format: formatTable}
		if flag := cmd.Flags().Lookup("output"); flag != nil {
			c.format = flag.Value.String()
		}
		if err := checkFormat(c.format); err != nil {
			return c.usage(err)
		}
		var err error
		options := r.options()
		c.tokenless = options.Token == ""
		if c.client, err = client.New(options); err != nil {
			return c.usage(err)
		}
		defer c.client.Close()
		return c.explain(cmd.Context(), f(cmd.Context(), c, args))
	}
}

func (c *session) usage(err error) error { return &usageError{c.cmd.CommandPath(), err} }

// say tells people something that is not the result.
func (c *session) say(format string, args ...any) {
	_, _ = fmt.Fprintln(c.s.err, c.cmd.CommandPath()+": "+oneText(fmt.Sprintf(format, args...)))
}

// done tells people what was done, as the result.
func (c *session) done(format string, args ...any) error {
	_, err := fmt.Fprintln(c.s.out, named(fmt.Sprintf(format, args...)))
	return err
}

// explain adds to an error of the client what to do next.
func (c *session) explain(ctx context.Context, err error) error {
	var answer *client.Error
	var transport *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		if c.tokenless && answer.Status == http.StatusUnauthorized {
			return fmt.Errorf("the server wants a token: give one with --token or %s%s", tokenVariable, tokenNote(c.client.Server()))
		}
		return explainAnswer(err, answer.Status)
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return errors.New("interrupted")
	case errors.Is(err, client.ErrAnswer):
		return fmt.Errorf("%w: check --server and %s", err, serverVariable)
	case errors.As(err, &transport):
		return c.explainTransport(transport)
	}
	return err
}

func explainAnswer(err error, status int) error {
	switch status {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: give a valid one with --token or %s", err, tokenVariable)
	case http.StatusForbidden:
		return fmt.Errorf("%w: use a token of a role that may do this; an admin makes one with collie token create", err)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w: run the command again to begin from what is there now", err)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusGatewayTimeout:
		return fmt.Errorf("%w: try again later", err)
	}
	return err
}

// tokenNote says why the admin token of this machine was not used.
func tokenNote(server string) string {
	if !client.IsLoopback(server) {
		return ""
	}
	file, err := os.Open(adminToken())
	if err == nil {
		_ = file.Close()
	}
	if errors.Is(err, fs.ErrPermission) {
		return " (you may not read " + adminToken() + ")"
	}
	return fmt.Sprintf(", or the server's folder with %s (there is no %s)", datadir.Variable, adminToken())
}

func (c *session) explainTransport(err *url.Error) error {
	if err.Timeout() {
		return fmt.Errorf("%s does not answer in time: try again later, or name another server with --server", c.client.Server())
	}
	if errors.As(err, new(x509.UnknownAuthorityError)) {
		return fmt.Errorf("%s: %w: name the certificates to trust with --ca-file or %s", c.client.Server(), err.Err, caVariable)
	}
	return fmt.Errorf("%s cannot be reached: %w: start collie server, or name another one with --server or %s",
		c.client.Server(), err.Err, serverVariable)
}

// completionTimeout is short: somebody waits for their shell.
const completionTimeout = 2 * time.Second

// complete makes a completion of the first arguments; it is silent when there is nothing to say.
func (r *remote) complete(arguments int, list func(ctx context.Context, c *client.Client, text string) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := client.New(r.options())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		found, err := list(ctx, c, text)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}
