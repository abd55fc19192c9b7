package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

func (a *API) listConnections(w http.ResponseWriter, r *request) error {
	all, err := a.control.Connections(r.Context())
	if err != nil {
		return err
	}
	list := apiv1.Connections{Connections: make([]apiv1.Connection, 0, len(all))}
	for _, c := range all {
		list.Connections = append(list.Connections, fromConnection(c))
	}
	return writeJSON(w, http.StatusOK, list)
}

func (a *API) connection(r *request, name string) (apiv1.Connection, error) {
	all, err := a.control.Connections(r.Context())
	if err != nil {
		return apiv1.Connection{}, err
	}
	i := slices.IndexFunc(all, func(c apiv1.Connection) bool { return c.Name == name })
	if i < 0 {
		return apiv1.Connection{}, refuse(http.StatusNotFound, "there is no connection %.100q: GET %s/connections lists them", name, prefix)
	}
	return fromConnection(all[i]), nil
}

func (a *API) getConnection(w http.ResponseWriter, r *request) error {
	c, err := a.connection(r, r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, c)
}

func (a *API) saveConnection(w http.ResponseWriter, r *request) error {
	var in apiv1.Connection
	if err := r.decode(&in); err != nil {
		return err
	}
	selector, err := r.offer(&in.Name, in.Selector, in.Priority)
	if err != nil {
		return err
	}
	in.Selector, in.UpdatedAt = selector, time.Time{}
	if err := checkOffer(&in.ConnectionOffer); err != nil {
		return err
	}
	if err := a.control.SaveConnection(r.Context(), r.actor, in); err != nil {
		return err
	}
	saved, err := a.connection(r, in.Name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, saved)
}

// offer checks what connections and packages have in common, and returns the selector as it is written elsewhere. The name is
// that of the path; one in the body must be the same.
func (r *request) offer(name *string, selector string, priority int) (string, error) {
	inPath := r.PathValue("name")
	if err := fleet.ValidateName(inPath); err != nil || strings.Contains(inPath, "/") {
		return "", refuse(http.StatusBadRequest, "%.200q is no name: want a-z, 0-9, and inside ., _, -", inPath)
	}
	if *name != "" && *name != inPath {
		return "", refuse(http.StatusBadRequest, `"name" is not that of the path: leave it out`)
	}
	*name = inPath
	parsed, err := fleet.ParseSelector(selector)
	if err != nil {
		return "", invalid(err)
	}
	return parsed.String(), checkPriority(priority)
}

// checkOffer refuses what could not work for any agent, and secrets where they would be shown.
func checkOffer(o *apiv1.ConnectionOffer) error {
	type named struct {
		field string
		*apiv1.Destination
	}
	destinations := []named{{"own_metrics", o.OwnMetrics}, {"own_traces", o.OwnTraces}, {"own_logs", o.OwnLogs}}
	for name, d := range o.Other {
		destinations = append(destinations, named{"other." + name, &d})
	}
	for _, d := range destinations {
		if d.Destination == nil || d.field == "own_metrics" && d.Endpoint == "self" {
			continue
		}
		if err := checkEndpoint(d.field, d.Endpoint); err != nil {
			return err
		}
	}
	if o.OpAMP == nil {
		return nil
	}
	if o.OpAMP.HeartbeatInterval != "" {
		if _, err := toDuration("opamp.heartbeat_interval", &o.OpAMP.HeartbeatInterval, 0); err != nil {
			return err
		}
	}
	if o.OpAMP.Endpoint == "" {
		return nil
	}
	return checkEndpoint("opamp", o.OpAMP.Endpoint)
}

func checkEndpoint(field, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil { // url's errors repeat the text, with what secrets it has
		return refuse(http.StatusBadRequest, "%.100s.endpoint: want a URL with scheme and host, and credentials in headers only", field)
	}
	return nil
}

func (a *API) deleteConnection(w http.ResponseWriter, r *request) error {
	if err := a.control.DeleteConnection(r.Context(), r.actor, r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) listPackages(w http.ResponseWriter, r *request) error {
	all, err := a.control.Packages(r.Context())
	if err != nil {
		return err
	}
	if all.Packages == nil {
		all.Packages = []apiv1.Package{}
	}
	if all.Offers == nil {
		all.Offers = []apiv1.PackageOffer{}
	}
	return writeJSON(w, http.StatusOK, all)
}

func (a *API) savePackageOffer(w http.ResponseWriter, r *request) error {
	var in apiv1.PackageOffer
	if err := r.decode(&in); err != nil {
		return err
	}
	selector, err := r.offer(&in.Name, in.Selector, in.Priority)
	if err != nil {
		return err
	}
	if in.Version == "" {
		return refuse(http.StatusBadRequest, `"version" is missing: GET %s/packages lists those there are`, prefix)
	}
	in.Selector, in.UpdatedAt = selector, time.Time{}
	if err := a.control.SavePackageOffer(r.Context(), r.actor, in); err != nil {
		return err
	}
	all, err := a.control.Packages(r.Context())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all.Offers, func(o apiv1.PackageOffer) bool { return o.Name == in.Name })
	if i < 0 {
		return store.ErrNotFound
	}
	return writeJSON(w, http.StatusOK, all.Offers[i])
}

func (a *API) deletePackageOffer(w http.ResponseWriter, r *request) error {
	if err := a.control.DeletePackageOffer(r.Context(), r.actor, r.PathValue("name")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
