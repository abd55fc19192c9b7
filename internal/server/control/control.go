package control

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
)

// Options are what a Control works with. Zero values mean the defaults.
type Options struct {
	Store store.Store
	Log   *slog.Logger
	// Auth knows the agents' credentials; nil lets every agent in.
	Auth *auth.Keeper
	// Authority signs client certificates; nil signs none.
	Authority Authority
	// Packages are the executables that can be offered; nil if there are none.
	Packages Packages
	// Recorder has the agents' own metrics; nil if this server takes none. MetricsToken makes the credential of one agent for them.
	Recorder     Recorder
	MetricsToken func(uid string) string
	// Credentials gives every agent that comes with an enrolment token a credential of its own, if it takes one.
	Credentials bool
	// PublicURL is the base URL at which agents reach the OpAMP endpoint, as wss://collie.example.com:4320; empty takes it from their
	// requests.
	PublicURL string
	// CA is the authority (PEM) that agents check this server by where it is the destination of own metrics; empty is the system's.
	CA string
	// Keep is how long what agents leave behind is kept.
	Keep Keep
	// OpAMP bounds the endpoint. Capabilities and custom capabilities are set here.
	OpAMP opampserver.Options
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Authority signs certificates.
type Authority interface {
	// Sign signs a CSR (PEM) for an agent; see package authority.
	Sign(csr []byte, uid string, lifetime time.Duration) (certificate []byte, err error)
	// PEM is the authority's own certificate.
	PEM() []byte
	// UIDOf is the agent that a certificate is for.
	UIDOf(certificate *x509.Certificate) (uid string, ok bool)
}

// Packages is a folder of executables.
type Packages interface {
	List() []apiv1.Package
	// Offer is what is sent to an agent of that platform; its files are fetched below base.
	Offer(version, os, arch, base string, headers http.Header) (*protobufs.PackagesAvailable, error)
	// PlatformOf says what an agent runs on.
	PlatformOf(attributes map[string]string) (os, arch string, ok bool)
}

// Recorder keeps agents' own metrics.
type Recorder interface {
	Series(uid string, now time.Time) (apiv1.Series, bool)
}

// Keep is how long things are kept; zero is for ever.
type Keep struct {
	// Agents that are away are deleted after this time.
	Agents time.Duration
	// Events are deleted after this time.
	Events time.Duration
}

const (
	// tick is how often the conductor looks when nobody calls it. Between two looks it rests for gap, and three times as long as it
	// looked, so that a large fleet that changes all the time has it at work for a quarter of the time.
	tick = 500 * time.Millisecond
	gap  = 50 * time.Millisecond
	// maxRest is far less than the gap after which rollouts wait for agents to come back.
	maxRest = 2 * time.Second
	// touchEvery is how often last_seen is written, pruneEvery how often old things are deleted.
	touchEvery = 15 * time.Second
	pruneEvery = time.Hour
	// stopLimit bounds the last writes.
	stopLimit = 10 * time.Second
)

// Control owns the fleet. New makes it, Start lets it act, Stop ends it.
type Control struct {
	store store.Store
	log   *slog.Logger
	auth  *auth.Keeper
	keep  Keep
	now   func() time.Time
	opamp *opampserver.Server

	authority    Authority
	packages     Packages
	recorder     Recorder
	metricsToken func(uid string) string
	credentials  bool
	publicURL    string
	ca           string

	nudge  chan struct{} // wakes the conductor; holds one
	ending chan struct{} // closed by Stop; plans end
	stop   sync.Once
	cancel context.CancelFunc
	done   sync.WaitGroup // the conductor, and plans

	// enrolling is held while a use of an enrolment token is counted, so that it is once for each agent. Taken before saving and mu.
	enrolling sync.Mutex

	// decide is held while configurations and rollouts change: one decision at a time. Taken before saving and mu.
	decide   sync.Mutex
	released map[string]fleet.Configuration // by name; guarded by decide
	rollouts map[string]*fleet.Rollout      // unfinished ones by ID, never changed in place; guarded by decide
	versions map[versionKey]*fleet.Version  // those in force; guarded by decide

	saving  sync.Mutex // held during a write of agents, so that writes keep their order. Taken before mu
	written int        // bytes of effective configurations since those that no agent has were deleted; guarded by saving

	mu          sync.Mutex // guards all below; held for moments, never during a write
	agents      map[uuid.UUID]*entry
	deployments []fleet.Deployment // replaced, never changed
	unsaved     pending
	gone        map[string]struct{} // UIDs whose rows must go
	plans       map[string]*planJob
	components  map[string]struct{} // hashes of sets of components that are stored
	// connections and packageOffers are replaced, never changed.
	connections   []wish[apiv1.Connection]
	packageOffers []wish[apiv1.PackageOffer]
}

// New loads the fleet. All agents are away until they come.
func New(ctx context.Context, o Options) (*Control, error) {
	c := &Control{
		store: o.Store, log: o.Log, auth: o.Auth, keep: o.Keep, now: o.Now,
		authority: o.Authority, packages: o.Packages, recorder: o.Recorder, metricsToken: o.MetricsToken, credentials: o.Credentials,
		publicURL: o.PublicURL, ca: o.CA, ending: make(chan struct{}),
		nudge: make(chan struct{}, 1), released: map[string]fleet.Configuration{}, rollouts: map[string]*fleet.Rollout{},
		versions: map[versionKey]*fleet.Version{}, agents: map[uuid.UUID]*entry{}, gone: map[string]struct{}{},
		plans: map[string]*planJob{}, components: map[string]struct{}{}, unsaved: newPending(),
	}
	if c.now == nil {
		c.now = time.Now
	}
	if err := errors.Join(c.loadAgents(ctx), c.loadWishes(ctx), c.loadComponents(ctx), c.loadDecisions(ctx)); err != nil {
		return nil, err
	}
	o.OpAMP.Capabilities = c.capabilities()
	o.OpAMP.CustomCapabilities = []string{plan.Capability}
	c.opamp = opampserver.New(c, o.Log, o.OpAMP)
	return c, nil
}

// Start begins to act: rollouts go on, and agents are offered what they lack. Until Stop.
func (c *Control) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.note(fleet.Event{Time: c.now(), Actor: fleet.ActorServer, Kind: fleet.ServerStarted})
	c.done.Go(func() { c.conduct(ctx) })
}

// Stop closes the agents' connections, and writes what is not written yet. It may be called without Start, and twice.
func (c *Control) Stop(ctx context.Context) error {
	c.stop.Do(func() { close(c.ending) })
	err := c.opamp.Shutdown(ctx)
	if c.cancel != nil {
		c.cancel()
		c.cancel = nil
		c.note(fleet.Event{Time: c.now(), Actor: fleet.ActorServer, Kind: fleet.ServerStopped})
	}
	c.done.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	return errors.Join(err, c.touch(last), c.save(last))
}

// Handler is the OpAMP endpoint.
func (c *Control) Handler() http.Handler { return c.opamp }

// conduct is the one goroutine that acts by itself.
func (c *Control) conduct(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	// Nothing is deleted at the start: after a long outage all agents were away for long, and need time to come back.
	touched, pruned := c.now(), c.now()
	for {
		began := time.Now()
		c.round(ctx)
		rest := min(max(gap, 3*time.Since(began)), maxRest)
		if now := c.now(); now.Sub(touched) >= touchEvery {
			touched = now
			c.report("write when agents were seen", c.touch(ctx))
		}
		if now := c.now(); now.Sub(pruned) >= pruneEvery {
			pruned = now
			c.report("delete what is old", c.prune(ctx))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
		select {
		case <-ctx.Done():
			return
		case <-c.nudge:
		case <-ticker.C:
		}
	}
}

// round looks at everything once.
func (c *Control) round(ctx context.Context) {
	c.report("step the rollouts", c.step(ctx))
	c.offerDue(ctx)
	c.report("write agents", c.save(ctx))
	c.report("delete agents", c.bury(ctx))
	c.report("delete effective configurations", c.discard(ctx))
}

// wake calls the conductor, who comes soon.
func (c *Control) wake() {
	select {
	case c.nudge <- struct{}{}:
	default:
	}
}

// report logs an error of something that will be tried again.
func (c *Control) report(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		c.log.Error("the store does not work; trying again", "action", what, "error", err)
	}
}

// capabilities are the server's bits.
func (c *Control) capabilities() uint64 {
	bits := opampserver.DefaultCapabilities | uint64(protobufs.ServerCapabilities_ServerCapabilities_OffersConnectionSettings)
	if c.packages != nil {
		bits |= uint64(protobufs.ServerCapabilities_ServerCapabilities_OffersPackages | protobufs.ServerCapabilities_ServerCapabilities_AcceptsPackagesStatus)
	}
	if c.authority != nil {
		bits |= uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsConnectionSettingsRequest)
	}
	return bits
}

// OpAMPMetrics are the endpoint's counters.
func (c *Control) OpAMPMetrics() opampserver.Metrics { return c.opamp.Metrics() }
