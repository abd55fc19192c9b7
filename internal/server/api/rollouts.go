package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func (a *API) startRollout(w http.ResponseWriter, r *request) error {
	var in apiv1.RolloutRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	if err := fleet.ValidateName(in.Configuration); err != nil {
		return invalid(err)
	}
	if in.Version < 0 {
		return refuse(http.StatusBadRequest, "version %d: want the number of a version, or 0 for the newest", in.Version)
	}
	spec, err := toSpec(&in)
	if err != nil {
		return err
	}
	rollout, err := a.control.StartRollout(r.Context(), r.actor, in.Configuration, in.Version, spec)
	if err != nil {
		return err
	}
	w.Header().Set("Location", prefix+"/rollouts/"+rollout.ID)
	return writeJSON(w, http.StatusCreated, fromRolloutWhole(rollout))
}

func toSpec(in *apiv1.RolloutRequest) (fleet.RolloutSpec, error) {
	spec := fleet.RolloutSpec{MaxFailures: in.MaxFailures, Force: in.Force}
	var err error
	if spec.Canary, err = toAmount(in.Canary); err != nil {
		return spec, refuse(http.StatusBadRequest, "canary: %s", err)
	}
	for _, wave := range in.Waves {
		amount, err := fleet.ParseAmount(wave)
		if err != nil || !strings.HasSuffix(wave, "%") {
			return spec, refuse(http.StatusBadRequest, `waves: %.50q: want a percentage, like "10%%"`, wave)
		}
		spec.Waves = append(spec.Waves, amount.Percent)
	}
	if spec.Soak, err = toDuration("soak", in.Soak, fleet.DefaultSoak); err != nil {
		return spec, err
	}
	if spec.Timeout, err = toDuration("timeout", in.Timeout, fleet.DefaultTimeout); err != nil {
		return spec, err
	}
	if err := spec.Validate(); err != nil {
		return spec, refuse(http.StatusBadRequest, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return spec, nil
}

// toAmount reads 2, "2" or "10%".
func toAmount(raw json.RawMessage) (fleet.Amount, error) {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return fleet.Amount{}, nil
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return fleet.Amount{}, err
		}
	}
	return fleet.ParseAmount(text)
}

// toDuration reads what must not be negative, nor longer than a year, which no one would see the end of.
func toDuration(field string, text *string, fallback time.Duration) (time.Duration, error) {
	if text == nil {
		return fallback, nil
	}
	d, err := time.ParseDuration(*text)
	if err != nil || d < 0 || d > 365*24*time.Hour {
		return 0, refuse(http.StatusBadRequest, `%s: %.50q: want a duration, like "30s"`, field, *text)
	}
	return d, nil
}

func (a *API) listRollouts(w http.ResponseWriter, r *request) error {
	q := store.RolloutQuery{Configuration: r.query.Get("configuration")}
	var err error
	if q.Unfinished, err = r.flag("unfinished"); err != nil {
		return err
	}
	if q.Limit, err = r.limit(); err != nil {
		return err
	}
	all, err := a.store.ListRollouts(r.Context(), q)
	if err != nil {
		return err
	}
	list := apiv1.Rollouts{Rollouts: make([]apiv1.Rollout, 0, len(all))}
	for _, rollout := range all {
		list.Rollouts = append(list.Rollouts, fromRollout(rollout))
	}
	return writeJSON(w, http.StatusOK, list)
}

func (a *API) getRollout(w http.ResponseWriter, r *request) error {
	rollout, err := a.store.Rollout(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fromRolloutWhole(rollout))
}

// steerRollout pauses, resumes or aborts.
func (a *API) steerRollout(
	steer func(ctx context.Context, actor, id string) (*fleet.Rollout, error),
) func(http.ResponseWriter, *request) error {
	return func(w http.ResponseWriter, r *request) error {
		rollout, err := steer(r.Context(), r.actor, r.PathValue("id"))
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, fromRolloutWhole(rollout))
	}
}
