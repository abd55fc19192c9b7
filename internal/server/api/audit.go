package api

import (
	"net/http"
	"strconv"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/server/store"
)

// audit is everything that happened.
func (a *API) audit(w http.ResponseWriter, r *request) error {
	return a.writeEvents(w, r, store.EventQuery{
		Agent: r.query.Get("agent"), Configuration: r.query.Get("configuration"), Rollout: r.query.Get("rollout"),
	})
}

// agentEvents are there also after the agent is forgotten.
func (a *API) agentEvents(w http.ResponseWriter, r *request) error {
	uid, err := r.uid()
	if err != nil {
		return err
	}
	return a.writeEvents(w, r, store.EventQuery{Agent: uid})
}

func (a *API) rolloutEvents(w http.ResponseWriter, r *request) error {
	if _, err := a.store.Rollout(r.Context(), r.PathValue("id")); err != nil {
		return err
	}
	return a.writeEvents(w, r, store.EventQuery{Rollout: r.PathValue("id")})
}

func (a *API) writeEvents(w http.ResponseWriter, r *request, q store.EventQuery) error {
	var err error
	if q.Limit, err = r.limit(); err != nil {
		return err
	}
	if q.Before, err = r.number("cursor", 1, 1<<63-1, 0); err != nil {
		return err
	}
	events, err := a.store.ListEvents(r.Context(), q)
	if err != nil {
		return err
	}
	page := apiv1.Events{Events: make([]apiv1.Event, 0, len(events))}
	for i := range events {
		page.Events = append(page.Events, fromEvent(&events[i]))
	}
	if len(events) == q.Limit {
		q.Before, q.Limit = events[len(events)-1].ID, 1
		older, err := a.store.ListEvents(r.Context(), q)
		if err != nil {
			return err
		}
		if len(older) > 0 {
			page.NextCursor = strconv.FormatInt(q.Before, 10)
		}
	}
	return writeJSON(w, http.StatusOK, page)
}
