package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/server/auth"
)

// checkTokens refuses on a server that has none.
func (a *API) checkTokens() error {
	if a.auth == nil {
		return refuse(http.StatusConflict, "this server runs with --dev and takes everybody without a token: start it without --dev to have tokens")
	}
	return nil
}

func (a *API) createToken(w http.ResponseWriter, r *request) error {
	if err := a.checkTokens(); err != nil {
		return err
	}
	var in apiv1.TokenRequest
	if err := r.decode(&in); err != nil {
		return err
	}
	ask := auth.Request{Role: in.Role, Uses: -1}
	if in.Uses != nil {
		if ask.Uses = *in.Uses; ask.Uses < 1 {
			return refuse(http.StatusBadRequest, "uses %d: want 1 or more, or leave it out for no limit", ask.Uses)
		}
	}
	var err error
	if ask.Expires, err = toLifetime(in.Expires); err != nil {
		return err
	}
	secret, token, err := a.auth.Create(r.Context(), r.actor, ask)
	if err != nil {
		return err
	}
	out := fromToken(&token)
	out.Secret = secret
	w.Header().Set("Location", prefix+"/tokens/"+token.ID)
	return writeJSON(w, http.StatusCreated, out)
}

// toLifetime reads a duration, or days: "720h", "30d". Empty is for ever.
func toLifetime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if days, found := strings.CutSuffix(text, "d"); found {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 {
		return 0, refuse(http.StatusBadRequest, `expires: %.50q: want a time from now on, like "720h" or "30d"`, text)
	}
	return d, nil
}

func (a *API) listTokens(w http.ResponseWriter, r *request) error {
	if err := a.checkTokens(); err != nil {
		return err
	}
	all, err := a.auth.List(r.Context())
	if err != nil {
		return err
	}
	list := apiv1.Tokens{Tokens: make([]apiv1.Token, 0, len(all))}
	for i := range all {
		list.Tokens = append(list.Tokens, fromToken(&all[i]))
	}
	return writeJSON(w, http.StatusOK, list)
}

func (a *API) revokeToken(w http.ResponseWriter, r *request) error {
	if err := a.checkTokens(); err != nil {
		return err
	}
	if err := a.auth.Revoke(r.Context(), r.actor, r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
