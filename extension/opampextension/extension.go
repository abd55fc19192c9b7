package opampextension

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/opampcustommessages"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/collie-otel/collie/internal/agent"
	"github.com/collie-otel/collie/internal/packages"
	"github.com/collie-otel/collie/internal/reload"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

// processStarted is the start of the process, as far as the agent's health is concerned.
var processStarted = time.Now()

// errOrphaned ends the process with a non-zero exit code: Shutdown returns it, and with it the Collector.
var errOrphaned = errors.New("the parent process is gone")

// opampExtension is one run of the Collector's view of the session, which outlives it in a reload.
type opampExtension struct {
	cfg    *Config
	set    extension.Settings
	health *healthTree

	session  *agent.Session // nil unless started
	host     component.Host
	stop     context.CancelFunc
	running  sync.WaitGroup // the goroutines of this run
	restarts chan struct{}  // capacity 1: the server wants one
	// receiverStarted has capacity 1: a receiver was started although the pipelines run, so the reload was a partial one.
	receiverStarted chan struct{}
	orphaned        atomic.Bool
	wasReady        atomic.Bool
	metrics         metric.Registration

	manager *remoteconfig.Manager // nil unless the configuration came through the scheme opamp:
	failure failure
	// installer is nil unless packages are on; replaced says that the executable on disk is another one.
	installer *packages.Manager
	replaced  atomic.Bool
	// reported is the effective configuration of this run.
	reported atomic.Pointer[protobufs.EffectiveConfig]
}

var (
	_ extensioncapabilities.Dependent              = (*opampExtension)(nil)
	_ extensioncapabilities.PipelineWatcher        = (*opampExtension)(nil)
	_ extensioncapabilities.ConfigSnapshotWatcher  = (*opampExtension)(nil)
	_ componentstatus.Watcher                      = (*opampExtension)(nil)
	_ opampcustommessages.CustomCapabilityRegistry = (*opampExtension)(nil)
)

func newExtension(set extension.Settings, cfg *Config) *opampExtension {
	return &opampExtension{cfg: cfg, set: set, health: newHealthTree(cfg.HealthGracePeriod, processStarted), restarts: make(chan struct{}, 1), receiverStarted: make(chan struct{}, 1)}
}

// Dependencies has the extension that authenticates start first.
func (e *opampExtension) Dependencies() []component.ID {
	if conn, _ := e.cfg.connection(); conn.Auth != (component.ID{}) {
		return []component.ID{conn.Auth}
	}
	return nil
}

// Start takes over the session that a reload has left, or prepares a new one. It does not wait for the server.
func (e *opampExtension) Start(ctx context.Context, host component.Host) error {
	if err := checkParent(e.cfg.PPID); err != nil {
		return err
	}
	reload.Created(e.set.Resource, host.GetExtensions())
	e.host, e.manager = host, e.currentManager()
	if err := e.acquire(ctx); err != nil {
		return err
	}
	e.describe()
	if err := errors.Join(e.attach(), e.openPackages(), e.observe()); err != nil {
		return errors.Join(err, e.Shutdown(ctx))
	}
	e.session.SetCapabilities(e.capabilities())
	e.run()
	return nil
}

// acquire gets the session.
func (e *opampExtension) acquire(ctx context.Context) error {
	settings, err := e.cfg.settings(ctx, e.host)
	if err != nil {
		return err
	}
	uid, err := parseUID(e.cfg.InstanceUID)
	if err != nil {
		return err
	}
	opts := agent.Options{StorageDirectory: e.cfg.Storage.Directory, InstanceUID: uid, Logger: e.set.Logger}
	if e.manager != nil {
		opts.NewInstanceUID = e.manager.NewInstanceUID()
	}
	e.session, err = agent.Acquire(e.sessionID(), opts, settings, e.wantRestart)
	return err
}

// describe sets what is known before anything runs.
func (e *opampExtension) describe() {
	e.session.SetDescription(describe(e.cfg.AgentDescription, e.set.Resource.Attributes()))
	if components := availableComponents(e.host); components != nil && e.cfg.Capabilities.ReportsAvailableComponents {
		e.session.SetComponents(components)
	}
	if e.cfg.Capabilities.ReportsHealth {
		report, _ := e.health.build(time.Now())
		e.session.SetHealth(report)
	}
}

// run starts the goroutines of this run; Shutdown ends them.
func (e *opampExtension) run() {
	running, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.running.Go(func() { e.reportHealth(running) })
	e.running.Go(func() { e.serve(running) })
	if e.installer != nil {
		e.running.Go(func() { e.servePackages(running) })
	}
	if e.acceptsRemoteConfig() {
		e.running.Go(func() { e.servePlans(running) })
	}
	if e.cfg.PPID != 0 {
		e.running.Go(func() { e.watchParent(running) })
	}
}

// Shutdown gives the session back: in a reload it stays connected for the next run, else the server hears a goodbye.
func (e *opampExtension) Shutdown(ctx context.Context) error {
	if e.session == nil {
		return e.detachUnstarted()
	}
	if e.stop != nil {
		e.stop()
	}
	e.running.Wait()
	var errs error
	if e.metrics != nil {
		errs = e.metrics.Unregister()
	}
	e.session.Custom.UnregisterAll()
	e.session = nil
	again := reload.GoesOn()
	e.endTrial()
	errs = errors.Join(errs, agent.Release(ctx, e.sessionID(), again))
	if e.orphaned.Load() {
		errs = errors.Join(errs, errOrphaned)
	}
	if e.manager != nil {
		errs = errors.Join(errs, e.manager.Detach(again, e.failure.String()))
	}
	e.executeReplaced()
	return errs
}

func (e *opampExtension) sessionID() string { return e.set.ID.String() }

// Ready is called when all pipelines run.
func (e *opampExtension) Ready() error {
	e.health.setReady(true)
	e.wasReady.Store(true)
	if e.manager != nil {
		e.manager.Health(e.health.problems()) // what happened in the start counts from the start
		e.manager.Ready()
	}
	return nil
}

// NotReady is called before the pipelines are stopped.
func (e *opampExtension) NotReady() error {
	e.health.setReady(false)
	if e.manager != nil {
		e.manager.NotReady()
	}
	return nil
}

// ComponentStatusChanged is called under a lock of the Collector: it only takes note.
func (e *opampExtension) ComponentStatusChanged(source *componentstatus.InstanceID, event *componentstatus.Event) {
	e.health.update(source, event)
	e.noteFailure(source, event)
	if source.Kind() == component.KindReceiver && event.Status() == componentstatus.StatusStarting && e.health.isReady() {
		e.wantReread()
	}
}

// wantReread has the configuration reported anew, in a moment.
func (e *opampExtension) wantReread() {
	select {
	case e.receiverStarted <- struct{}{}:
	default:
	}
}

// NotifyConfigSnapshot takes the configuration that runs. It is the last thing that the first message needs.
func (e *opampExtension) NotifyConfigSnapshot(_ context.Context, snapshot extensioncapabilities.ConfigSnapshot) error {
	if e.session == nil {
		return nil
	}
	defer e.session.Begin()
	if err := e.reportConfig(snapshot.Effective(), snapshot.Unexpanded()); err != nil {
		e.set.Logger.Error("The effective configuration cannot be reported.", zap.Error(err))
	}
	return nil
}

func (e *opampExtension) reportConfig(effective, unexpanded *confmap.Conf) error {
	if !e.cfg.Capabilities.ReportsEffectiveConfig {
		return nil
	}
	report, err := effectiveConfig(effective, unexpanded, e.cfg.Capabilities.ReportsRawConfig)
	if err == nil {
		e.session.SetEffectiveConfig(report)
		e.reported.Store(report)
	}
	return err
}

// Register lets other extensions send and receive custom messages.
func (e *opampExtension) Register(capability string, opts ...opampcustommessages.CustomCapabilityRegisterOption) (opampcustommessages.CustomCapabilityHandler, error) {
	if e.session == nil {
		return nil, fmt.Errorf("register custom capability %s: the opamp extension is not started: name it in Dependencies", capability)
	}
	return e.session.Custom.Register(capability, opts...)
}

func (e *opampExtension) capabilities() protobufs.AgentCapabilities {
	var all protobufs.AgentCapabilities
	for _, c := range []struct {
		on  bool
		bit protobufs.AgentCapabilities
	}{
		{e.cfg.Capabilities.ReportsEffectiveConfig, protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig},
		{e.cfg.Capabilities.ReportsHealth, protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth},
		{e.cfg.Capabilities.ReportsHeartbeat, protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat},
		{e.cfg.Capabilities.ReportsAvailableComponents, protobufs.AgentCapabilities_AgentCapabilities_ReportsAvailableComponents},
		{e.cfg.Capabilities.AcceptsOpAMPConnectionSettings, protobufs.AgentCapabilities_AgentCapabilities_AcceptsOpAMPConnectionSettings},
		{e.cfg.Capabilities.ReportsConnectionSettingsStatus, protobufs.AgentCapabilities_AgentCapabilities_ReportsConnectionSettingsStatus},
		{e.acceptsRemoteConfig(), protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig},
		{e.manager != nil && e.cfg.Capabilities.ReportsOwnMetrics, protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnMetrics},
		{e.manager != nil && e.cfg.Capabilities.ReportsOwnTraces, protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnTraces},
		{e.manager != nil && e.cfg.Capabilities.ReportsOwnLogs, protobufs.AgentCapabilities_AgentCapabilities_ReportsOwnLogs},
		{e.manager != nil && e.cfg.Capabilities.AcceptsOtherConnectionSettings, protobufs.AgentCapabilities_AgentCapabilities_AcceptsOtherConnectionSettings},
		{e.installer != nil, protobufs.AgentCapabilities_AgentCapabilities_AcceptsPackages},
		{e.installer != nil && e.cfg.Capabilities.ReportsPackageStatuses, protobufs.AgentCapabilities_AgentCapabilities_ReportsPackageStatuses},
		{e.acceptsRemoteConfig() && e.cfg.Capabilities.ReportsRemoteConfig, protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig},
		{e.cfg.Capabilities.AcceptsRestartCommand && (canReload || e.manager != nil), protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand},
	} {
		if c.on {
			all |= c.bit
		}
	}
	return all
}

const (
	// healthDelay gathers the events of a start or a reload, which come in their dozens within milliseconds.
	healthDelay = 50 * time.Millisecond
	// healthLimit is how long events can put a report off: a restless component must not hide what the others say.
	healthLimit = 500 * time.Millisecond
)

// reportHealth hands the tree over whenever it has changed, or a grace period has ended; to the manager, which may be
// waiting for the end of a soak, at once.
func (e *opampExtension) reportHealth(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var latest time.Time // when what has changed is to be reported; zero when nothing has
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.health.changed:
			e.judgeHealth()
			if latest.IsZero() {
				latest = time.Now().Add(healthLimit)
			}
			timer.Reset(min(healthDelay, time.Until(latest)))
		case now := <-timer.C:
			latest = time.Time{}
			report, again := e.health.build(now)
			if e.cfg.Capabilities.ReportsHealth {
				e.session.SetHealth(report)
			}
			e.judgeHealth()
			if again > 0 {
				timer.Reset(again)
			}
		}
	}
}

func (e *opampExtension) judgeHealth() {
	if e.manager != nil {
		e.manager.Health(e.health.problems())
	}
}
