package api

import (
	"net/http"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

const (
	defaultWait = 10 * time.Second
	maxWait     = time.Minute
)

// makePlan asks, and waits for the answers a while.
func (a *API) makePlan(w http.ResponseWriter, r *request) error {
	wait, err := r.wait()
	if err != nil {
		return err
	}
	in, err := r.planRequest()
	if err != nil {
		return err
	}
	plan, err := a.control.Plan(r.Context(), r.actor, in)
	if err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-a.control.PlanDone(plan.ID):
	case <-timer.C:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	if plan, err = a.control.GetPlan(r.Context(), plan.ID); err != nil {
		return err
	}
	w.Header().Set("Location", prefix+"/plans/"+plan.ID)
	status := http.StatusOK
	if plan.State != planDone {
		status = http.StatusAccepted
	}
	return writeJSON(w, status, fromPlan(plan))
}

const planDone = "done"

func (r *request) wait() (time.Duration, error) {
	if !r.query.Has("wait") {
		return defaultWait, nil
	}
	wait, err := time.ParseDuration(r.query.Get("wait"))
	if err != nil || wait < 0 || wait > maxWait {
		return 0, refuse(http.StatusBadRequest, `wait=%.50s: want a duration up to %s, like "30s"`, r.query.Get("wait"), maxWait)
	}
	return wait, nil
}

func (r *request) planRequest() (apiv1.PlanRequest, error) {
	var in apiv1.PlanRequest
	if err := r.decode(&in); err != nil {
		return in, err
	}
	if err := fleet.ValidateName(in.Name); err != nil {
		return in, invalid(err)
	}
	if in.Selector != nil {
		if _, err := fleet.ParseSelector(*in.Selector); err != nil {
			return in, invalid(err)
		}
	}
	if in.Priority != nil {
		if err := checkPriority(*in.Priority); err != nil {
			return in, err
		}
	}
	return in, checkBody(in.Body)
}

func checkPriority(n int) error {
	if n < -fleet.MaxPriority || n > fleet.MaxPriority {
		return refuse(http.StatusBadRequest, "priority %d: want %d to %d", n, -fleet.MaxPriority, fleet.MaxPriority)
	}
	return nil
}

func (a *API) getPlan(w http.ResponseWriter, r *request) error {
	plan, err := a.control.GetPlan(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fromPlan(plan))
}

func fromPlan(p apiv1.Plan) apiv1.Plan {
	if p.Agents == nil {
		p.Agents = []apiv1.PlanAgent{}
	}
	return p
}
