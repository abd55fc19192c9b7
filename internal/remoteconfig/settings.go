package remoteconfig

import (
	"errors"
	"fmt"
	"time"

	"github.com/collie-otel/collie/internal/overlay"
)

// What happens when a configuration does not start, in Collectors that do not have otelcol-collie's main.
const (
	OnFailedStartRestart = "restart" // the process executes itself again, with the same PID
	OnFailedStartExit    = "exit"    // the process ends, and its service manager starts it again
)

// Settings is the block remote_config of the extension. It is local: remote configuration cannot change it.
type Settings struct {
	// Mode is merge (remote files over the base file) or replace (the base file gives extensions only).
	Mode overlay.Mode `mapstructure:"mode"`
	// Soak is how long a configuration must run, ready and healthy, before it counts as good.
	Soak time.Duration `mapstructure:"soak"`
	// StartTimeout is how long the start of a configuration may take.
	StartTimeout time.Duration `mapstructure:"start_timeout"`
	// StopTimeout is how long the configuration before may take to end; exporters deliver what they hold in memory.
	StopTimeout time.Duration `mapstructure:"stop_timeout"`
	// OnFailedStart is restart or exit.
	OnFailedStart string `mapstructure:"on_failed_start"`
	// CrashLoop takes a configuration back with which the process keeps crashing.
	CrashLoop CrashLoop `mapstructure:"crash_loop"`
	// WatchBase applies a changed base file without a SIGHUP.
	WatchBase bool `mapstructure:"watch_base"`
	// ComponentsAllowed and ComponentsDenied say what remote configuration may declare: kinds (receivers...) to types or ids.
	ComponentsAllowed map[string][]string `mapstructure:"components_allowed"`
	ComponentsDenied  map[string][]string `mapstructure:"components_denied"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// CrashLoop is this many crashes within that time.
type CrashLoop struct {
	Crashes int           `mapstructure:"crashes"`
	Within  time.Duration `mapstructure:"within"`
}

// DefaultSettings are those of the documentation.
func DefaultSettings() Settings {
	return Settings{
		Mode: overlay.ModeMerge, Soak: 10 * time.Second, StartTimeout: 30 * time.Second, StopTimeout: 2 * time.Minute, OnFailedStart: OnFailedStartRestart,
		CrashLoop: CrashLoop{Crashes: 3, Within: 5 * time.Minute}, WatchBase: true,
	}
}

// Validate reports every mistake at once.
func (s Settings) Validate() error {
	var errs error
	fail := func(format string, args ...any) { errs = errors.Join(errs, fmt.Errorf(format, args...)) }
	if s.Mode != overlay.ModeMerge && s.Mode != overlay.ModeReplace {
		fail("mode: want %s or %s, got %q", overlay.ModeMerge, overlay.ModeReplace, s.Mode)
	}
	if s.Soak < 0 {
		fail("soak: must not be negative, got %v", s.Soak)
	}
	if s.StartTimeout <= 0 {
		fail("start_timeout: must be positive, got %v", s.StartTimeout)
	}
	if s.StopTimeout <= 0 {
		fail("stop_timeout: must be positive, got %v", s.StopTimeout)
	}
	if s.OnFailedStart != OnFailedStartRestart && s.OnFailedStart != OnFailedStartExit {
		fail("on_failed_start: want %s or %s, got %q", OnFailedStartRestart, OnFailedStartExit, s.OnFailedStart)
	}
	if s.CrashLoop.Crashes < 1 {
		fail("crash_loop::crashes: must be 1 or more, got %d", s.CrashLoop.Crashes)
	}
	if s.CrashLoop.Within <= 0 {
		fail("crash_loop::within: must be positive, got %v", s.CrashLoop.Within)
	}
	return errors.Join(errs, s.policy(nil).Validate())
}

func (s Settings) policy(aliases func(kind, name string) []string) overlay.Policy {
	return overlay.Policy{Allowed: s.ComponentsAllowed, Denied: s.ComponentsDenied, Aliases: aliases}
}
