package opampextension

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/collector/config/configtls"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/agent"
	"github.com/collie-otel/collie/internal/packages"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// Packages is how executables of the server are accepted.
type Packages struct {
	// PublicKeys are minisign's; without one nothing is accepted.
	PublicKeys []string `mapstructure:"public_keys"`
	// StagingDirectory is where downloads go; empty: the storage directory.
	StagingDirectory string `mapstructure:"staging_directory"`
}

func (c *Config) validatePackages() error {
	if c.Capabilities.AcceptsPackages && len(c.Packages.PublicKeys) == 0 {
		return errors.New("capabilities::accepts_packages: needs packages::public_keys: only signed executables are accepted")
	}
	if err := packages.CheckKeys(c.Packages.PublicKeys); err != nil {
		return fmt.Errorf("packages::%w", err)
	}
	return nil
}

// executable is where this process was started from; after an update another file is there.
var executable, errExecutable = os.Executable()

// openPackages joins session and installer. An installer that cannot be opened, as on Windows, leaves packages off.
func (e *opampExtension) openPackages() error {
	if !e.cfg.Capabilities.AcceptsPackages {
		return nil
	}
	if errExecutable != nil {
		return fmt.Errorf("packages: find the executable: %w", errExecutable)
	}
	conn, _ := e.cfg.connection()
	key, err := json.Marshal([]any{e.cfg.Packages, e.cfg.Storage, conn.TLS.CAFile, string(conn.TLS.CAPem)})
	if err != nil {
		return err
	}
	opened, err := e.session.Companion(fmt.Sprintf("%x", sha256.Sum256(key)), func() (agent.Companion, error) {
		limits := packages.DefaultLimits()
		transport, err := downloads(conn.TLS)
		if err != nil {
			return nil, err
		}
		return packages.Open(packages.Options{
			Directory: e.cfg.Storage.Directory, StagingDirectory: e.cfg.Packages.StagingDirectory,
			Executable: executable, Version: e.set.BuildInfo.Version, PublicKeys: e.cfg.Packages.PublicKeys, Limits: limits, Transport: transport,
			DryRun:  packages.Validate(os.Args[1:], os.Environ(), limits.DryRun),
			Changed: e.session.SetPackageStatuses, Logger: e.set.Logger,
		})
	})
	if err != nil {
		e.set.Logger.Error("Packages are off.", zap.Error(err))
		return nil
	}
	e.installer = opened.(*packages.Manager)
	if e.takeRestart(); e.replaced.Load() { // this executable was on trial and did not live: the old one is back
		return remoteconfig.ExecuteAgain()
	}
	e.session.SetPackageStatuses(e.installer.Statuses())
	e.session.OnPackages(e.installer.Offer)
	return nil
}

// downloads trusts, beside the system's authorities, the one that the OpAMP server's certificate is checked by: packages come from
// that server more often than not. What is installed is decided by signatures alone.
func downloads(server configtls.ClientConfig) (http.RoundTripper, error) {
	if server.CAFile == "" && server.CAPem == "" {
		return nil, nil
	}
	trusted, err := configtls.ClientConfig{Config: configtls.Config{
		CAFile: server.CAFile, CAPem: server.CAPem, IncludeSystemCACertsPool: true, MinVersion: server.MinVersion,
	}}.LoadTLSConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trusted
	return transport, nil
}

// servePackages judges a new executable, and ends the Collector when the one on disk is another one. An executable is good
// when the Collector has been ready and free of lasting errors for the time that configurations need, too.
func (e *opampExtension) servePackages(ctx context.Context) {
	look := time.NewTicker(judgeEvery)
	defer look.Stop()
	var well time.Time // since when
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.installer.Restart():
			e.replaced.Store(true)
			e.set.Logger.Warn("The executable has been replaced: the Collector ends and executes it.", zap.String("executable", executable))
			if err := endProcess(); err != nil {
				e.set.Logger.Error("The Collector cannot end itself: restart it.", zap.Error(err))
			}
		case now := <-look.C:
			if !e.installer.OnTrial() {
				continue
			}
			switch problem := e.lasting(); {
			case problem != "":
				e.judgeExecutable(problem)
			case !e.health.isReady():
				well = time.Time{}
			case well.IsZero():
				well = now
			case now.Sub(well) >= e.cfg.RemoteConfig.Soak:
				e.judgeExecutable("")
			}
		}
	}
}

// judgeEvery is how often the health of a new executable is looked at.
const judgeEvery = 100 * time.Millisecond

// judgeExecutable confirms the executable, or has it taken back for a reason. What cannot be stored is tried again.
func (e *opampExtension) judgeExecutable(reason string) {
	err := error(nil)
	if reason == "" {
		err = e.installer.Confirm()
	} else {
		err = e.installer.Fail(reason)
	}
	if err != nil && !errors.Is(err, packages.ErrNotOnTrial) && !errors.Is(err, context.Canceled) {
		e.set.Logger.Error("The new executable cannot be judged.", zap.Error(err))
	}
}

// lasting is what is wrong for good.
func (e *opampExtension) lasting() string {
	var all []string
	for name, problem := range e.health.problems() {
		if problem.Lasting {
			all = append(all, name+": "+problem.Err)
		}
	}
	return strings.Join(all, "; ")
}

// takeRestart notes that the executable was replaced.
func (e *opampExtension) takeRestart() {
	select {
	case <-e.installer.Restart():
		e.replaced.Store(true)
	default:
	}
}

// endTrial is for a run that ends before it was ready: an executable on trial has failed with it.
func (e *opampExtension) endTrial() {
	if e.installer == nil || e.wasReady.Load() || !e.installer.OnTrial() {
		return
	}
	e.judgeExecutable("start: " + e.failure.String())
	e.takeRestart()
}

// executeReplaced is the end of a process whose executable is another one: everything else has been shut down.
func (e *opampExtension) executeReplaced() {
	if e.replaced.Load() {
		e.set.Logger.Error("The executable on disk cannot be executed: the service manager must start it.", zap.Error(remoteconfig.ExecuteAgain()))
	}
}
