package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/plan"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/store"
)

const (
	// maxPlans bounds the plans that are kept, maxRunning those under way.
	maxPlans   = 50
	maxRunning = 4
	// keepPlan is how long a plan is kept after its end.
	keepPlan = time.Hour
)

// planJob is one plan. Its goroutine asks and waits; answers come from the agents' connections.
type planJob struct {
	id, name string
	created  time.Time
	answers  chan planAnswer // bounded: each agent has one question at a time
	done     chan struct{}   // closed at the end

	mu       sync.Mutex // guards all below
	agents   map[string]*apiv1.PlanAgent
	finished time.Time
	diffs    map[string]string // by what agents said; size is theirs, in bytes
	size     int
}

type planAnswer struct {
	uid    string
	answer plan.Answer
}

// Plan is part of api.Control.
func (c *Control) Plan(ctx context.Context, actor string, r apiv1.PlanRequest) (apiv1.Plan, error) {
	candidate, err := c.candidate(ctx, r)
	if err != nil {
		return apiv1.Plan{}, err
	}
	job := &planJob{
		id: "p" + strings.ToLower(rand.Text()[:9]), name: r.Name, created: c.now(), done: make(chan struct{}), agents: map[string]*apiv1.PlanAgent{},
	}
	c.mu.Lock()
	if err := c.admitPlan(); err != nil {
		c.mu.Unlock()
		return apiv1.Plan{}, err
	}
	questions := c.questions(job, candidate)
	job.answers = make(chan planAnswer, len(questions)+1)
	c.plans[job.id] = job
	c.unsaved.event(fleet.Event{Time: job.created, Actor: actor, Kind: fleet.PlanRequested, Configuration: r.Name, Message: job.id})
	c.mu.Unlock()
	c.report("write a plan", c.save(ctx))
	c.done.Go(func() { c.ask(job, questions) })
	return job.snapshot(), nil
}

// admitPlan makes room for a plan. The caller holds mu.
func (c *Control) admitPlan() error {
	running := 0
	var oldest *planJob
	for id, job := range c.plans {
		select {
		case <-job.done:
			if c.now().Sub(job.created) > keepPlan {
				delete(c.plans, id)
			} else if oldest == nil || job.created.Before(oldest.created) {
				oldest = job
			}
		default:
			running++
		}
	}
	if running >= maxRunning {
		return fmt.Errorf("%d plans are under way: %w", running, api.ErrBusy)
	}
	if len(c.plans) >= maxPlans && oldest != nil {
		delete(c.plans, oldest.id)
	}
	return nil
}

// candidate is the version that the plan is about.
func (c *Control) candidate(ctx context.Context, r apiv1.PlanRequest) (*fleet.Version, error) {
	v := &fleet.Version{Configuration: r.Name, Body: []byte(r.Body), Hash: fleet.ContentHash([]byte(r.Body))}
	conf, err := c.store.Configuration(ctx, r.Name)
	switch {
	case err == nil:
		newest, err := c.store.Version(ctx, r.Name, conf.Latest)
		if err != nil {
			return nil, err
		}
		v.Selector, v.Priority = newest.Selector, newest.Priority
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	if r.Selector != nil {
		if v.Selector, err = fleet.ParseSelector(*r.Selector); err != nil {
			return nil, fmt.Errorf("%w: selector: %w", store.ErrInvalid, err)
		}
	}
	if r.Priority != nil {
		v.Priority = *r.Priority
	}
	if err := v.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return v, nil
}

// questions are what each agent concerned is asked: the whole set that it would get. Those that cannot be asked have their answer at
// once. The caller holds mu.
func (c *Control) questions(job *planJob, candidate *fleet.Version) []*question {
	const assumed = "plan"
	deployment := fleet.Deployment{Rollout: &fleet.Rollout{ID: assumed}, Next: fleet.Placement{Version: candidate}}
	deployments := slices.Clone(c.deployments)
	i := slices.IndexFunc(deployments, func(d fleet.Deployment) bool {
		return d.Rollout != nil && d.Rollout.Configuration == candidate.Configuration ||
			d.Released.Version != nil && d.Released.Version.Configuration == candidate.Configuration
	})
	if i >= 0 {
		deployment.Released = deployments[i].Released
		deployments[i] = deployment
	} else {
		deployments = append(deployments, deployment)
	}
	var questions []*question
	bodies := map[versionKey]string{} // one copy of each
	for _, e := range c.agents {
		if !deployment.Reaches(e.agent.Attributes()) {
			continue
		}
		entry := &apiv1.PlanAgent{InstanceUID: e.agent.UID, Name: nameOf(&e.agent), Outcome: apiv1.OutcomeWaiting}
		job.agents[e.agent.UID] = entry
		if entry.Message = cannotTell(&e.agent); entry.Message != "" {
			entry.Outcome = apiv1.OutcomeCannotTell
			continue
		}
		q := &question{uid: e.uid, http: e.agent.Transport == "http", files: map[string]string{}}
		for _, f := range fleet.DesiredIf(&e.agent, deployments, assumed).Files {
			key := versionKey{f.Configuration, f.Version}
			if _, known := bodies[key]; !known {
				bodies[key] = string(f.Body)
			}
			q.files[f.Name] = bodies[key]
		}
		questions = append(questions, q)
	}
	return questions
}

// cannotTell says why an agent cannot be asked.
func cannotTell(a *fleet.Agent) string {
	switch {
	case !a.Capabilities.Has(fleet.AcceptsRemoteConfig):
		return "does not accept remote configuration"
	case !slices.Contains(a.CustomCapabilities, plan.Capability):
		return "does not have the capability " + plan.Capability
	case !a.Connected:
		return "is not connected"
	}
	return ""
}

func nameOf(a *fleet.Agent) string {
	return cmp.Or(a.NonIdentifying["host.name"], a.Identifying["host.name"], a.Identifying["service.instance.id"], a.UID)
}

// GetPlan is part of api.Control.
func (c *Control) GetPlan(_ context.Context, id string) (apiv1.Plan, error) {
	if job := c.planJob(id); job != nil {
		return job.snapshot(), nil
	}
	return apiv1.Plan{}, store.ErrNotFound
}

// PlanDone is part of api.Control.
func (c *Control) PlanDone(id string) <-chan struct{} {
	if job := c.planJob(id); job != nil {
		return job.done
	}
	over := make(chan struct{})
	close(over)
	return over
}

func (c *Control) planJob(id string) *planJob {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.plans[id]
}

// planAnswer takes an agent's answer.
func (c *Control) planAnswer(uid string, data []byte) {
	var answer plan.Answer
	if len(data) > plan.MaxMessage || json.Unmarshal(data, &answer) != nil {
		return
	}
	id, asked, _ := strings.Cut(answer.ID, ":")
	job := c.planJob(id)
	if job == nil || asked != uid {
		return
	}
	select {
	case job.answers <- planAnswer{uid, answer}:
	default: // more answers than questions
	}
}

// snapshot is the plan as it is.
func (j *planJob) snapshot() apiv1.Plan {
	j.mu.Lock()
	defer j.mu.Unlock()
	p := apiv1.Plan{ID: j.id, Name: j.name, State: "running", CreatedAt: j.created, FinishedAt: j.finished, Agents: make([]apiv1.PlanAgent, 0, len(j.agents))}
	if !j.finished.IsZero() {
		p.State = "done"
	}
	counts := map[string]*int{
		apiv1.OutcomeAccepted: &p.Accepted, apiv1.OutcomeRefused: &p.Refused, apiv1.OutcomeCannotTell: &p.CannotTell, apiv1.OutcomeWaiting: &p.Waiting,
	}
	for _, a := range j.agents {
		*counts[a.Outcome]++
		p.Agents = append(p.Agents, *a)
	}
	slices.SortFunc(p.Agents, func(a, b apiv1.PlanAgent) int { return strings.Compare(a.InstanceUID, b.InstanceUID) })
	return p
}

// set notes what became of one agent's question.
func (j *planJob) set(uid uuid.UUID, outcome, message string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.agents[uid.String()]
	a.Outcome, a.Message = outcome, message
}
