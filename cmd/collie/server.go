package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/datadir"
	"github.com/collie-otel/collie/internal/gomem"
	"github.com/collie-otel/collie/internal/server"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
)

// stopLimit bounds the end of the server; what is not finished then is cut off.
const stopLimit = 30 * time.Second

// serverFlags are laid over the file.
type serverFlags struct {
	file, logLevel string
	given          server.Config
}

func newServerCommand(s streams) *cobra.Command {
	f := &serverFlags{given: server.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane: the OpAMP endpoint for agents, and the API for people",
		Long: `Run the control plane: the OpAMP endpoint for agents, and the API for people.

It keeps everything in one folder and runs until Ctrl-C or SIGTERM. The first start makes an admin token in that folder, where the
other commands on this machine find it. With --dev there are no tokens, and it listens on loopback only.`,
		Example: `  collie server --dev
  collie server --config /etc/collie/server.yaml
  collie server backup /backup/collie.db`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, s) },
	}
	f.register(cmd)
	cmd.AddCommand(newBackupCommand(s))
	return cmd
}

func (f *serverFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", "", "YAML `file`; flags go over it")
	flags.StringVar(&f.given.DataDir, "data-dir", f.given.DataDir, "`folder` for everything that lasts ($"+datadir.Variable+")")
	flags.StringVar(&f.given.OpAMP.Listen, "opamp-listen", f.given.OpAMP.Listen, "where agents connect, `host:port`")
	flags.StringVar(&f.given.API.Listen, "listen", f.given.API.Listen, "where people and the command line connect, `host:port`")
	flags.StringVar(&f.given.OpAMP.PublicURL, "public-url", "", "`URL` at which agents reach the OpAMP endpoint through proxies, as wss://collie.example.com:4320")
	flags.StringVar(&f.given.Packages.Directory, "packages-dir", "", "`folder` of signed executables that may be offered")
	flags.StringSliceVar(&f.given.Packages.PublicKeys, "packages-key", nil, "minisign public `key` of their signatures; may be repeated")
	flags.BoolVar(&f.given.Dev, "dev", false, "no tokens; loopback only")
	flags.BoolVar(&f.given.Insecure, "insecure", false, "allow to listen beyond loopback without TLS or tokens")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
}

// config is the defaults, the file, and the flags that were given.
func (f *serverFlags) config(cmd *cobra.Command) (server.Config, error) {
	c := server.DefaultConfig()
	if f.file != "" {
		if err := c.ReadConfig(f.file); err != nil {
			return c, err
		}
	}
	flags := cmd.Flags()
	for name, set := range map[string]func(){
		"data-dir":     func() { c.DataDir = f.given.DataDir },
		"opamp-listen": func() { c.OpAMP.Listen = f.given.OpAMP.Listen },
		"listen":       func() { c.API.Listen = f.given.API.Listen },
		"public-url":   func() { c.OpAMP.PublicURL = f.given.OpAMP.PublicURL },
		"packages-dir": func() { c.Packages.Directory = f.given.Packages.Directory },
		"packages-key": func() { c.Packages.PublicKeys = f.given.Packages.PublicKeys },
		"dev":          func() { c.Dev = f.given.Dev },
		"insecure":     func() { c.Insecure = f.given.Insecure },
	} {
		if flags.Changed(name) {
			set()
		}
	}
	if err := c.Validate(); err != nil {
		return c, &usageError{cmd.CommandPath(), err}
	}
	return c, nil
}

func (f *serverFlags) run(cmd *cobra.Command, s streams) error {
	config, err := f.config(cmd)
	if err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return &usageError{cmd.CommandPath(), fmt.Errorf("--log-level must be debug, info, warn or error, got %q", f.logLevel)}
	}
	log := slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level}))
	if err := gomem.Apply(os.LookupEnv, gomem.Thrift); err != nil {
		log.Warn("the memory limit is not known", "error", err)
	}
	srv, err := server.New(cmd.Context(), config, log)
	if err != nil {
		return err
	}
	srv.Start()
	select {
	case <-cmd.Context().Done():
	case err = <-srv.Failed():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), stopLimit)
	defer cancel()
	return errors.Join(err, srv.Stop(ctx))
}

func newBackupCommand(s streams) *cobra.Command {
	dir := datadir.Default()
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the server's database to a file, while the server runs or not",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &usageError{cmd.CommandPath(), errors.New("want the FILE to write")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return backup(cmd.Context(), s, dir, args[0]) },
	}
	cmd.Flags().StringVar(&dir, "data-dir", dir, "the server's `folder`")
	return cmd
}

// backup makes no database where there is none.
func backup(ctx context.Context, s streams, dir, file string) error {
	path := filepath.Join(dir, server.Database)
	if !isFile(path) {
		return fmt.Errorf("there is no %s: name the server's folder with --data-dir", path)
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("%s is there already: name another file", file)
	}
	db, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	err = errors.Join(db.Backup(ctx, file), db.Close())
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s: %d bytes. To restore it, stop the server and put it in the place of %s; files of that name with -wal and -shm go.\n", file, info.Size(), path)
	return err
}
