package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// name is the name in the path. What is no name is nothing that is there.
func (r *request) name() (string, error) {
	name := r.PathValue("name")
	if err := fleet.ValidateName(name); err != nil {
		return "", refuse(http.StatusNotFound, "%s", err)
	}
	return name, nil
}

func (a *API) listConfigurations(w http.ResponseWriter, r *request) error {
	all, err := a.store.ListConfigurations(r.Context())
	if err != nil {
		return err
	}
	list := apiv1.Configurations{Configurations: make([]apiv1.Configuration, 0, len(all))}
	for i := range all {
		versions, err := a.store.ListVersions(r.Context(), all[i].Name)
		if errors.Is(err, store.ErrNotFound) || err == nil && len(versions) == 0 {
			continue // deleted in between
		}
		if err != nil {
			return err
		}
		list.Configurations = append(list.Configurations, fromConfiguration(&all[i], &versions[0]))
	}
	return writeJSON(w, http.StatusOK, list)
}

func (a *API) getConfiguration(w http.ResponseWriter, r *request) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	c, err := a.store.Configuration(r.Context(), name)
	if err != nil {
		return err
	}
	return a.writeConfiguration(w, r, &c, http.StatusOK)
}

// writeConfiguration answers a configuration with its newest version; its ETag is the number.
func (a *API) writeConfiguration(w http.ResponseWriter, r *request, c *fleet.Configuration, status int) error {
	v, err := a.store.Version(r.Context(), c.Name, c.Latest)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(strconv.Itoa(v.Number)))
	return writeJSON(w, status, fromConfiguration(c, &v))
}

func (a *API) saveConfiguration(w http.ResponseWriter, r *request) error {
	version, err := r.version()
	if err != nil {
		return err
	}
	before, err := a.store.Configuration(r.Context(), version.Configuration)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	expected, err := r.expected(before.Latest)
	if err != nil {
		return err
	}
	saved, err := a.control.SaveConfiguration(r.Context(), r.actor, version, expected)
	if errors.Is(err, store.ErrConflict) && expected != store.AnyVersion {
		return refuse(http.StatusPreconditionFailed, "%s is not at version %d: read it again, then decide", version.Configuration, expected)
	}
	if err != nil {
		return err
	}
	status := http.StatusOK
	if before.Latest == 0 {
		status = http.StatusCreated
	}
	c, err := a.store.Configuration(r.Context(), version.Configuration)
	if err != nil {
		return err
	}
	c.Latest = saved.Number // another one may have come since; this is the answer to ours
	return a.writeConfiguration(w, r, &c, status)
}

// version reads the version to save.
func (r *request) version() (fleet.Version, error) {
	var in apiv1.SaveConfiguration
	if err := fleet.ValidateName(r.PathValue("name")); err != nil {
		return fleet.Version{}, invalid(err)
	}
	if err := r.decode(&in); err != nil {
		return fleet.Version{}, err
	}
	selector, err := fleet.ParseSelector(in.Selector)
	if err != nil {
		return fleet.Version{}, invalid(err)
	}
	if err := checkBody(in.Body); err != nil {
		return fleet.Version{}, err
	}
	v := fleet.Version{
		Configuration: r.PathValue("name"), Selector: selector, Priority: in.Priority, Body: []byte(in.Body), Author: r.actor,
	}
	if err := v.Validate(); err != nil {
		return v, refuse(http.StatusBadRequest, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return v, nil
}

// checkBody looks at a configuration's body: whether it is one that agents can run is theirs to say.
func checkBody(body string) error {
	if strings.TrimSpace(body) == "" {
		return refuse(http.StatusBadRequest, `"body" is empty: it is the YAML of the configuration`)
	}
	if len(body) > fleet.MaxBody {
		return refuse(http.StatusRequestEntityTooLarge, `"body" has %d bytes; the limit is %d`, len(body), fleet.MaxBody)
	}
	return nil
}

// expected is the version that must be the newest, by If-Match and If-None-Match.
func (r *request) expected(latest int) (int, error) {
	match, none := r.Header.Values("If-Match"), r.Header.Values("If-None-Match")
	switch {
	case len(match) == 0 && len(none) == 0:
		return store.AnyVersion, nil
	case len(match) == 0 && len(none) == 1 && none[0] == "*":
		return 0, nil
	case len(none) > 0 || len(match) > 1:
		return 0, refuse(http.StatusBadRequest, "want one header If-Match with an ETag, or If-None-Match: *")
	case match[0] == "*" && latest == 0:
		return 0, refuse(http.StatusPreconditionFailed, "there is no such configuration")
	case match[0] == "*":
		return latest, nil
	}
	text, opened := strings.CutPrefix(match[0], `"`)
	text, closed := strings.CutSuffix(text, `"`)
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || !opened || !closed || n == 0 {
		return 0, refuse(http.StatusBadRequest, `If-Match: want the number of a version in quotes, like "3"`)
	}
	return int(n), nil
}

func (a *API) deleteConfiguration(w http.ResponseWriter, r *request) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	if err := a.control.DeleteConfiguration(r.Context(), r.actor, name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) listVersions(w http.ResponseWriter, r *request) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	c, err := a.store.Configuration(r.Context(), name)
	if err != nil {
		return err
	}
	all, err := a.store.ListVersions(r.Context(), name)
	if err != nil {
		return err
	}
	list := apiv1.Versions{Versions: make([]apiv1.Version, 0, len(all))}
	for i := range all {
		list.Versions = append(list.Versions, fromVersion(&all[i], c.Released.Version))
	}
	return writeJSON(w, http.StatusOK, list)
}

func (a *API) getVersion(w http.ResponseWriter, r *request) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(r.PathValue("version"), 10, 31)
	if err != nil {
		return refuse(http.StatusNotFound, "%.50q is no number of a version", r.PathValue("version"))
	}
	c, err := a.store.Configuration(r.Context(), name)
	if err != nil {
		return err
	}
	v, err := a.store.Version(r.Context(), name, int(number))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, fromVersion(&v, c.Released.Version))
}

// maxDiff bounds what is compared, in bytes, one at a time: 4 MiB of lines of two kinds take a second and allocate 800 MiB.
const maxDiff = 4 << 20

func (a *API) diffVersions(w http.ResponseWriter, r *request) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	from, err := a.versionOf(r, name, "from")
	if err != nil {
		return err
	}
	to, err := a.versionOf(r, name, "to")
	if err != nil {
		return err
	}
	if size := len(from.Body) + len(to.Body); size > maxDiff {
		return refuse(http.StatusConflict, "the two have %d bytes; up to %d are compared here: get both versions, and compare them", size, maxDiff)
	}
	select {
	case a.comparing <- struct{}{}:
		defer func() { <-a.comparing }()
	case <-r.Context().Done():
		return r.Context().Err()
	}
	label := func(v *fleet.Version) string { return fmt.Sprintf("%s@%d", name, v.Number) }
	diff := udiff.Unified(label(&from), label(&to), string(from.Body), string(to.Body))
	write(w, http.StatusOK, "text/x-diff; charset=utf-8", []byte(diff))
	return nil
}

func (a *API) versionOf(r *request, name, parameter string) (fleet.Version, error) {
	number, err := r.number(parameter, 1, 1<<31-1, 0)
	if err != nil {
		return fleet.Version{}, err
	}
	if number == 0 {
		return fleet.Version{}, refuse(http.StatusBadRequest, "%s is missing: the number of a version", parameter)
	}
	return a.store.Version(r.Context(), name, int(number))
}
