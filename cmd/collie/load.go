package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/config/configtls"

	"github.com/collie-otel/collie/internal/traffic"
)

// loadFlags are the flags of collie load that are not fields of traffic.LoadConfig as they are.
type loadFlags struct {
	cfg      traffic.LoadConfig
	headers  []string
	caFile   string
	insecure bool
	output   string
}

func newLoadCommand(s streams) *cobra.Command {
	f := &loadFlags{}
	cmd := &cobra.Command{
		Use:   "load --endpoint HOST:PORT",
		Short: "Send numbered test traces over OTLP and say what was acknowledged",
		Long: `Send numbered test traces over OTLP and say what was acknowledged.

Each span carries its run and its number, so that collie sink --acknowledged can tell which acknowledged spans were lost.
The exit code is 0 when everything sent was acknowledged and 1 when something was refused or failed.`,
		Example: `  collie load --endpoint 127.0.0.1:4317 --rate 1000 --duration 10s
  collie load --endpoint 127.0.0.1:4318 --protocol http --traces 500 --retry -o json > load.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, s) },
	}
	f.register(cmd)
	return cmd
}

func (f *loadFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.cfg.Endpoints, "endpoint", []string{"127.0.0.1:4317"}, "where to send, `host:port`; several take requests in turn")
	flags.StringVar(&f.cfg.Protocol, "protocol", traffic.ProtocolGRPC, "grpc or http")
	flags.Float64Var(&f.cfg.Rate, "rate", 0, "`spans` per second; 0 is as fast as acknowledged")
	flags.DurationVar(&f.cfg.Duration, "duration", 0, "end after this time; 0 goes on until --traces or Ctrl-C")
	flags.IntVar(&f.cfg.Traces, "traces", 0, "end after so many traces; 0 is no limit")
	flags.IntVar(&f.cfg.Services, "services", 5, "services per trace")
	flags.IntVar(&f.cfg.SpansPerTrace, "spans-per-trace", 10, "spans per trace, spread over its services")
	flags.IntVar(&f.cfg.BatchSize, "batch-size", 100, "spans per request")
	flags.IntVar(&f.cfg.Workers, "workers", 4, "concurrent senders")
	flags.Float64Var(&f.cfg.SlowRatio, "slow-ratio", 0.1, "share of traces that take 700 to 1500 ms")
	flags.Float64Var(&f.cfg.ErrorRatio, "error-ratio", 0.05, "share of traces with an ERROR span")
	flags.BoolVar(&f.cfg.Retry, "retry", false, "send refused and failed requests again until they are acknowledged")
	flags.DurationVar(&f.cfg.Timeout, "timeout", 0, "how long a request may take (default 5s)")
	flags.DurationVar(&f.cfg.Reconnect, "reconnect", 0, "longest wait between attempts to connect over gRPC; 0 leaves it to grpc-go (1s, growing)")
	flags.StringVar(&f.cfg.Compression, "compression", "none", "none, gzip, snappy or zstd")
	flags.StringVar(&f.cfg.Run, "run", "", "run id, 8 hex digits (default random)")
	flags.IntVar(&f.cfg.FirstTrace, "first-trace", 0, "number of the first trace, to go on with an earlier --run")
	flags.StringArrayVar(&f.headers, "header", nil, "header sent with each request, `key=value`; may be repeated")
	flags.StringVar(&f.caFile, "ca-file", "", "CA certificate of the server; implies TLS")
	flags.BoolVar(&f.insecure, "insecure", true, "plaintext; --insecure=false is TLS with the system's CAs")
	flags.StringVarP(&f.output, "output", "o", formatTable, "table or json")
}

// config completes the configuration from the flags that need a look.
func (f *loadFlags) config(cmd *cobra.Command) (traffic.LoadConfig, error) {
	cfg := f.cfg
	if err := checkOutput(cmd, f.output); err != nil {
		return cfg, err
	}
	for _, header := range f.headers {
		key, value, ok := strings.Cut(header, "=")
		if !ok || key == "" {
			return cfg, &usageError{cmd.CommandPath(), fmt.Errorf("--header must be key=value, got %q", header)}
		}
		if cfg.Headers == nil {
			cfg.Headers = map[string]string{}
		}
		cfg.Headers[key] = value
	}
	if f.caFile != "" || !f.insecure {
		if f.caFile != "" && f.insecure && cmd.Flags().Changed("insecure") {
			return cfg, &usageError{cmd.CommandPath(), fmt.Errorf("--ca-file means TLS and --insecure means plaintext: leave one out")}
		}
		tls := configtls.NewDefaultClientConfig()
		tls.CAFile = f.caFile
		cfg.TLS = &tls
	}
	return cfg, cfg.Validate()
}

func (f *loadFlags) run(cmd *cobra.Command, s streams) error {
	cfg, err := f.config(cmd)
	if err != nil {
		return badFlags(cmd, err)
	}
	_, live := terminalOf(s.err)
	if live {
		cfg.OnProgress = func(p traffic.Progress) { _, _ = io.WriteString(s.err, eraseLine+progressLine(p)) }
	}
	summary, err := traffic.RunLoad(cmd.Context(), cfg)
	if live {
		_, _ = io.WriteString(s.err, eraseLine)
	}
	if err != nil {
		return err
	}
	if f.output == formatJSON {
		err = writeJSON(s.out, summary)
	} else {
		_, err = io.WriteString(s.out, loadTable(summary))
	}
	if err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return loadVerdict(summary)
}

// loadVerdict is an error unless everything sent was acknowledged.
func loadVerdict(s traffic.LoadSummary) error {
	if s.Acknowledged == s.Sent {
		return nil
	}
	message := fmt.Sprintf("%d of %d spans were not acknowledged (%d refused, %d failed)", s.Sent-s.Acknowledged, s.Sent, s.Refused, s.Failed)
	if s.LastError != "" {
		message += ", last: " + s.LastError
	}
	return fmt.Errorf("%s: check the endpoint, or use --retry to send them again", message)
}

// writeJSON writes one document with a final newline.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}
