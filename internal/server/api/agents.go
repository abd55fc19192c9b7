package api

import (
	"net/http"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

const typeYAML = "text/yaml; charset=utf-8"

func (a *API) listAgents(w http.ResponseWriter, r *request) error {
	q, err := r.agentQuery(a.now(), a.hideAfter)
	if err != nil {
		return err
	}
	page, err := a.store.ListAgents(r.Context(), q)
	if err != nil {
		return err
	}
	all := apiv1.Agents{Agents: make([]apiv1.Agent, 0, len(page.Agents)), NextCursor: page.Next, Total: page.Total}
	for i := range page.Agents {
		all.Agents = append(all.Agents, fromAgent(&page.Agents[i]))
	}
	return writeJSON(w, http.StatusOK, all)
}

// agentQuery leaves out agents that have been away for longer than hideAfter, unless they are asked for.
func (r *request) agentQuery(now time.Time, hideAfter time.Duration) (store.AgentQuery, error) {
	q := store.AgentQuery{Text: r.query.Get("q"), Cursor: r.query.Get("cursor")}
	var err error
	if q.Selector, err = fleet.ParseSelector(r.query.Get("selector")); err != nil {
		return q, invalid(err)
	}
	if state := r.query.Get("state"); state != "" {
		if q.State, err = fleet.ParseState(state); err != nil {
			return q, invalid(err)
		}
	}
	if q.Cursor != "" && fleet.ValidateUID(q.Cursor) != nil {
		return q, refuse(http.StatusBadRequest, "the cursor is not a next_cursor of an answer")
	}
	hidden, err := r.flag("hidden")
	if err != nil {
		return q, err
	}
	if !hidden && hideAfter > 0 {
		q.SeenSince = now.Add(-hideAfter)
	}
	q.Limit, err = r.limit()
	return q, err
}

// uid is the agent of the path. What is no uid is no agent.
func (r *request) uid() (string, error) {
	uid := r.PathValue("uid")
	if err := fleet.ValidateUID(uid); err != nil {
		return "", refuse(http.StatusNotFound, "%.200s", err)
	}
	return uid, nil
}

func (a *API) agent(r *request) (fleet.Agent, error) {
	uid, err := r.uid()
	if err != nil {
		return fleet.Agent{}, err
	}
	return a.store.Agent(r.Context(), uid)
}

func (a *API) getAgent(w http.ResponseWriter, r *request) error {
	agent, err := a.agent(r)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fromAgent(&agent))
}

func (a *API) forgetAgent(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	if err := a.control.Forget(r.Context(), r.actor, uid); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) effectiveConfig(w http.ResponseWriter, r *request) error {
	agent, err := a.agent(r)
	if err != nil {
		return err
	}
	if agent.EffectiveConfigHash == "" {
		return refuse(http.StatusNotFound, "agent %s has not reported its effective configuration", agent.UID)
	}
	body, err := a.store.EffectiveConfig(r.Context(), agent.EffectiveConfigHash)
	if err != nil {
		return err
	}
	write(w, http.StatusOK, typeYAML, body)
	return nil
}

func (a *API) desiredConfig(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	set, err := a.control.Desired(r.Context(), uid)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fromDesired(set))
}

func (a *API) components(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	components, err := a.control.Components(r.Context(), uid)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, components)
}

func (a *API) throughput(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	series, err := a.control.Throughput(r.Context(), uid)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fromSeries(series))
}

func (a *API) restartAgent(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	if err := a.control.Restart(r.Context(), r.actor, uid); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (a *API) rotateCredential(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	if err := a.control.RotateCredential(r.Context(), r.actor, uid); err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
