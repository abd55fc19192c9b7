package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/collie-otel/collie/internal/traffic"
)

const (
	redrawEvery = time.Second
	// lineEvery is how often counts that changed are told where there is no terminal.
	lineEvery       = 5 * time.Second
	shutdownTimeout = 10 * time.Second
)

type sinkFlags struct {
	cfg          traffic.SinkConfig
	duration     time.Duration
	acknowledged string
	output       string
}

func newSinkCommand(s streams) *cobra.Command {
	f := &sinkFlags{}
	cmd := &cobra.Command{
		Use:   "sink",
		Short: "Receive OTLP and say what arrived",
		Long: `Receive OTLP traces, metrics and logs over gRPC and HTTP, show what arrives, and print a summary at the end.

With --acknowledged the summary of collie load is compared with what arrived: the exit code is 1 when a span that was
acknowledged is missing.`,
		Example: `  collie sink --listen 127.0.0.1:5317
  collie sink --listen 127.0.0.1:5317 --duration 30s --acknowledged load.json -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd, s) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cfg.Listen, "listen", "127.0.0.1:5317", "`host:port` of OTLP gRPC; port 0 is a free one")
	flags.StringVar(&f.cfg.HTTPListen, "http-listen", "", "`host:port` of OTLP/HTTP (default the port after --listen's)")
	flags.DurationVar(&f.cfg.Delay, "delay", 0, "wait this long before each answer")
	flags.Float64Var(&f.cfg.FailRatio, "fail-ratio", 0, "share of requests to refuse with a retryable error")
	flags.DurationVar(&f.duration, "duration", 0, "end after this time; 0 goes on until Ctrl-C")
	flags.StringVar(&f.acknowledged, "acknowledged", "", "JSON summary of collie load to compare with, read at the end")
	flags.StringVarP(&f.output, "output", "o", formatTable, "table or json")
	return cmd
}

func (f *sinkFlags) run(cmd *cobra.Command, s streams) error {
	if err := checkOutput(cmd, f.output); err != nil {
		return err
	}
	if f.duration < 0 {
		return &usageError{cmd.CommandPath(), errors.New("--duration must be 0 or more")}
	}
	sink, err := traffic.NewSink(f.cfg)
	if err != nil {
		return badFlags(cmd, err)
	}
	ctx := cmd.Context()
	if err := sink.Start(ctx); err != nil {
		return fmt.Errorf("%w: choose other ports with --listen and --http-listen", err)
	}
	_, _ = fmt.Fprintf(s.err, "collie sink: listening on %s (gRPC) and %s (HTTP)\n", sink.GRPCEndpoint(), sink.HTTPEndpoint())
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	f.watch(ctx, s, sink)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	stopErr := sink.Shutdown(stopCtx)
	return errors.Join(f.report(s, sink), stopErr)
}

// watch shows what arrives until the end of the context.
func (f *sinkFlags) watch(ctx context.Context, s streams, sink *traffic.Sink) {
	if terminal, ok := terminalOf(s.out); ok && f.output == formatTable {
		screen := &screen{w: s.out, height: func() int { return terminalHeight(terminal) }}
		every(ctx, redrawEvery, func() { screen.draw(sinkTable(sink.Summary())) })
		screen.draw("")
		return
	}
	var last string
	every(ctx, lineEvery, func() {
		if line := sinkLine(sink.Summary()); line != last {
			_, _ = fmt.Fprintln(s.err, "collie sink: "+line)
			last = line
		}
	})
}

// every calls f until the end of the context.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}

// sinkResult is the JSON summary; the number is there when there was something to compare with.
type sinkResult struct {
	traffic.SinkSummary
	AcknowledgedMissing *uint64 `json:"acknowledged_missing,omitempty"`
}

func (f *sinkFlags) report(s streams, sink *traffic.Sink) error {
	result := sinkResult{SinkSummary: sink.Summary()}
	var verdict error
	if f.acknowledged != "" {
		missing, err := compare(f.acknowledged, sink)
		if err == nil {
			result.AcknowledgedMissing = &missing
		}
		if missing > 0 {
			err = fmt.Errorf("%d acknowledged spans are missing", missing)
		}
		verdict = err
	}
	var err error
	if f.output == formatJSON {
		err = writeJSON(s.out, result)
	} else {
		text := sinkTable(result.SinkSummary)
		if result.AcknowledgedMissing != nil {
			text += fmt.Sprintf("\nacknowledged spans missing: %d\n", *result.AcknowledgedMissing)
		}
		_, err = io.WriteString(s.out, text)
	}
	if err != nil {
		err = fmt.Errorf("write the summary: %w", err)
	}
	return errors.Join(err, verdict)
}

// compare returns how many of the acknowledged spans of a summary of collie load the sink has not received.
func compare(path string, sink *traffic.Sink) (uint64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("--acknowledged: %w: write it with collie load -o json > %s", err, path)
	}
	var sent traffic.LoadSummary
	if err := json.Unmarshal(content, &sent); err != nil || sent.Run == "" {
		return 0, fmt.Errorf("--acknowledged: %s is not a summary written by collie load -o json", path)
	}
	return traffic.Missing(sent.AcknowledgedSet(), sink.Received(sent.Run)).GetCardinality(), nil
}
