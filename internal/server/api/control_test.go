package api

import (
	"context"
	"sync"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
)

// fakeControl stores what the real one would, and decides nothing. Functions that are set take its place.
type fakeControl struct {
	store *sqlite.Store
	mu    sync.Mutex
	// calls are what was asked to change.
	calls       []string
	connections map[string]apiv1.Connection
	offers      map[string]apiv1.PackageOffer
	fail        func(call string) error
	done        chan struct{}
	plan        apiv1.Plan
	desired     fleet.DesiredSet
	series      apiv1.Series
	lastSpec    fleet.RolloutSpec
}

func (c *fakeControl) called(actor, call string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		if err := c.fail(call); err != nil {
			return err
		}
	}
	c.calls = append(c.calls, actor+": "+call)
	return nil
}

func (c *fakeControl) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.calls...)
}

func (c *fakeControl) Restart(_ context.Context, actor, uid string) error {
	return c.called(actor, "restart "+uid)
}

func (c *fakeControl) Forget(ctx context.Context, actor, uid string) error {
	if err := c.store.ForgetAgent(ctx, uid); err != nil {
		return err
	}
	return c.called(actor, "forget "+uid)
}

func (c *fakeControl) Desired(context.Context, string) (fleet.DesiredSet, error) {
	return c.desired, c.failing("desired")
}

func (c *fakeControl) failing(call string) error {
	if c.fail != nil {
		return c.fail(call)
	}
	return nil
}

func (c *fakeControl) SaveConfiguration(ctx context.Context, actor string, v fleet.Version, expected int) (fleet.Version, error) {
	if err := c.failing("save"); err != nil {
		return v, err
	}
	v, err := c.store.SaveVersion(ctx, v, expected)
	if err == nil {
		err = c.called(actor, "save "+v.Configuration)
	}
	return v, err
}

func (c *fakeControl) DeleteConfiguration(ctx context.Context, actor, name string) error {
	if err := c.store.DeleteConfiguration(ctx, name); err != nil {
		return err
	}
	return c.called(actor, "delete "+name)
}

func (c *fakeControl) Plan(_ context.Context, actor string, r apiv1.PlanRequest) (apiv1.Plan, error) {
	return apiv1.Plan{ID: "p1", Name: r.Name, State: "running"}, c.called(actor, "plan "+r.Name)
}

func (c *fakeControl) GetPlan(_ context.Context, id string) (apiv1.Plan, error) {
	if id != "p1" {
		return apiv1.Plan{}, store.ErrNotFound
	}
	return c.plan, nil
}

func (c *fakeControl) PlanDone(string) <-chan struct{} {
	if c.done == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return c.done
}

func (c *fakeControl) StartRollout(ctx context.Context, actor, name string, version int, spec fleet.RolloutSpec) (*fleet.Rollout, error) {
	conf, err := c.store.Configuration(ctx, name)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		version = conf.Latest
	}
	c.lastSpec = spec
	r, event, err := fleet.NewRollout("r-"+name, conf, version, spec, actor, time.Now())
	if err != nil {
		return nil, &joined{store.ErrInvalid, err}
	}
	if err := c.store.CreateRollout(ctx, r, event); err != nil {
		return nil, err
	}
	return r, c.called(actor, "rollout "+name)
}

type joined struct{ kind, cause error }

func (j *joined) Error() string   { return j.cause.Error() }
func (j *joined) Unwrap() []error { return []error{j.kind, j.cause} }

func (c *fakeControl) steer(ctx context.Context, actor, id string, do func(*fleet.Rollout) error) (*fleet.Rollout, error) {
	r, err := c.store.Rollout(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := do(r); err != nil {
		return nil, err
	}
	if err := c.store.SaveRollout(ctx, r); err != nil {
		return nil, err
	}
	return r, c.called(actor, "steer "+id)
}

func (c *fakeControl) PauseRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error) {
	return c.steer(ctx, actor, id, func(r *fleet.Rollout) error { _, err := r.Pause(time.Now(), actor); return err })
}

func (c *fakeControl) ResumeRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error) {
	return c.steer(ctx, actor, id, func(r *fleet.Rollout) error { _, err := r.Resume(time.Now(), actor); return err })
}

func (c *fakeControl) AbortRollout(ctx context.Context, actor, id string) (*fleet.Rollout, error) {
	return c.steer(ctx, actor, id, func(r *fleet.Rollout) error { _, err := r.Abort(time.Now(), actor); return err })
}

func (c *fakeControl) Connections(context.Context) ([]apiv1.Connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []apiv1.Connection
	for _, one := range c.connections {
		all = append(all, one)
	}
	return all, nil
}

func (c *fakeControl) SaveConnection(_ context.Context, actor string, one apiv1.Connection) error {
	c.mu.Lock()
	if c.connections == nil {
		c.connections = map[string]apiv1.Connection{}
	}
	c.connections[one.Name] = one
	c.mu.Unlock()
	return c.called(actor, "connection "+one.Name)
}

func (c *fakeControl) DeleteConnection(_ context.Context, actor, name string) error {
	c.mu.Lock()
	_, there := c.connections[name]
	delete(c.connections, name)
	c.mu.Unlock()
	if !there {
		return store.ErrNotFound
	}
	return c.called(actor, "delete connection "+name)
}

func (c *fakeControl) RotateCredential(_ context.Context, actor, uid string) error {
	return c.called(actor, "rotate "+uid)
}

func (c *fakeControl) Packages(context.Context) (apiv1.Packages, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var p apiv1.Packages
	for _, o := range c.offers {
		p.Offers = append(p.Offers, o)
	}
	return p, nil
}

func (c *fakeControl) SavePackageOffer(_ context.Context, actor string, o apiv1.PackageOffer) error {
	c.mu.Lock()
	if c.offers == nil {
		c.offers = map[string]apiv1.PackageOffer{}
	}
	c.offers[o.Name] = o
	c.mu.Unlock()
	return c.called(actor, "offer "+o.Name)
}

func (c *fakeControl) DeletePackageOffer(_ context.Context, actor, name string) error {
	c.mu.Lock()
	_, there := c.offers[name]
	delete(c.offers, name)
	c.mu.Unlock()
	if !there {
		return store.ErrNotFound
	}
	return c.called(actor, "delete offer "+name)
}

func (c *fakeControl) Components(context.Context, string) (apiv1.Components, error) {
	return apiv1.Components{Hash: "01", Kinds: map[string][]string{"receivers": {"otlp"}}}, c.failing("components")
}

func (c *fakeControl) Throughput(context.Context, string) (apiv1.Series, error) {
	return c.series, c.failing("throughput")
}
