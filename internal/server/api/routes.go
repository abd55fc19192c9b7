package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/server/auth"
)

// route is one method of one path.
type route struct {
	method string
	// path is below prefix, as ServeMux reads it.
	path string
	// role is the least that may.
	role   string
	handle func(http.ResponseWriter, *request) error
	// query are the parameters that there are.
	query []string
	// large bodies hold a configuration.
	large bool
	// timeout is defaultTimeout if zero, and none if negative.
	timeout time.Duration
}

const (
	actorDev       = "dev"
	maxSmall       = 64 << 10
	maxLarge       = 24 << 20
	defaultTimeout = 30 * time.Second
)

// table lists all routes. openapi.yaml has the same.
func (a *API) table() []route {
	const viewer, operator, admin = apiv1.RoleViewer, apiv1.RoleOperator, apiv1.RoleAdmin
	page := []string{"limit", "cursor"}
	return []route{
		{method: "GET", path: "/agents", role: viewer, handle: a.listAgents, query: append([]string{"selector", "state", "q", "hidden"}, page...)},
		{method: "GET", path: "/agents/{uid}", role: viewer, handle: a.getAgent},
		{method: "DELETE", path: "/agents/{uid}", role: operator, handle: a.forgetAgent},
		{method: "GET", path: "/agents/{uid}/effective-config", role: viewer, handle: a.effectiveConfig},
		{method: "GET", path: "/agents/{uid}/desired-config", role: viewer, handle: a.desiredConfig},
		{method: "GET", path: "/agents/{uid}/events", role: viewer, handle: a.agentEvents, query: page},
		{method: "GET", path: "/agents/{uid}/components", role: viewer, handle: a.components},
		{method: "GET", path: "/agents/{uid}/throughput", role: viewer, handle: a.throughput},
		{method: "POST", path: "/agents/{uid}/restart", role: operator, handle: a.restartAgent},
		{method: "POST", path: "/agents/{uid}/rotate-credential", role: operator, handle: a.rotateCredential},

		{method: "GET", path: "/configurations", role: viewer, handle: a.listConfigurations},
		{method: "GET", path: "/configurations/{name}", role: viewer, handle: a.getConfiguration},
		{method: "PUT", path: "/configurations/{name}", role: operator, handle: a.saveConfiguration, large: true},
		{method: "DELETE", path: "/configurations/{name}", role: operator, handle: a.deleteConfiguration},
		{method: "GET", path: "/configurations/{name}/versions", role: viewer, handle: a.listVersions},
		{method: "GET", path: "/configurations/{name}/versions/{version}", role: viewer, handle: a.getVersion},
		{method: "GET", path: "/configurations/{name}/diff", role: viewer, handle: a.diffVersions, query: []string{"from", "to"}},

		{method: "POST", path: "/plans", role: operator, handle: a.makePlan, query: []string{"wait"}, large: true, timeout: maxWait + defaultTimeout},
		{method: "GET", path: "/plans/{id}", role: viewer, handle: a.getPlan},

		{method: "POST", path: "/rollouts", role: operator, handle: a.startRollout},
		{method: "GET", path: "/rollouts", role: viewer, handle: a.listRollouts, query: []string{"configuration", "unfinished", "limit"}},
		{method: "GET", path: "/rollouts/{id}", role: viewer, handle: a.getRollout},
		{method: "GET", path: "/rollouts/{id}/events", role: viewer, handle: a.rolloutEvents, query: page},
		{method: "POST", path: "/rollouts/{id}/pause", role: operator, handle: a.steerRollout(a.control.PauseRollout)},
		{method: "POST", path: "/rollouts/{id}/resume", role: operator, handle: a.steerRollout(a.control.ResumeRollout)},
		{method: "POST", path: "/rollouts/{id}/abort", role: operator, handle: a.steerRollout(a.control.AbortRollout)},

		{method: "POST", path: "/tokens", role: admin, handle: a.createToken},
		{method: "GET", path: "/tokens", role: admin, handle: a.listTokens},
		{method: "DELETE", path: "/tokens/{id}", role: admin, handle: a.revokeToken},

		{method: "GET", path: "/events", role: viewer, handle: a.streamChanges, timeout: -1},
		{method: "GET", path: "/audit", role: viewer, handle: a.audit, query: append([]string{"agent", "configuration", "rollout"}, page...)},

		{method: "GET", path: "/connections", role: viewer, handle: a.listConnections},
		{method: "GET", path: "/connections/{name}", role: viewer, handle: a.getConnection},
		{method: "PUT", path: "/connections/{name}", role: operator, handle: a.saveConnection},
		{method: "DELETE", path: "/connections/{name}", role: operator, handle: a.deleteConnection},

		{method: "GET", path: "/packages", role: viewer, handle: a.listPackages},
		{method: "PUT", path: "/packages/offers/{name}", role: operator, handle: a.savePackageOffer},
		{method: "DELETE", path: "/packages/offers/{name}", role: operator, handle: a.deletePackageOffer},

		{method: "GET", path: "/openapi.yaml", role: viewer, handle: openAPI},
	}
}

// register gives each route to the mux, and behind them answers for other methods and other paths.
func (a *API) register() {
	methods := map[string][]string{}
	for _, route := range a.routes {
		methods[route.path] = append(methods[route.path], route.method)
		a.mux.HandleFunc(route.method+" "+prefix+route.path, func(w http.ResponseWriter, r *http.Request) {
			if err := a.serve(w, r, &route); err != nil {
				a.fail(w.(*answer), r, err)
			}
		})
	}
	for path, allowed := range methods {
		if slices.Contains(allowed, "GET") {
			allowed = append(allowed, "HEAD")
		}
		slices.Sort(allowed)
		allow := strings.Join(allowed, ", ")
		a.mux.HandleFunc(prefix+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			a.fail(w.(*answer), r, refuse(http.StatusMethodNotAllowed, "this takes %s, not %.20s", allow, r.Method))
		})
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.fail(w.(*answer), r, errNoRoute) })
}

// serve looks at who asks before anything else, then lets the route answer.
func (a *API) serve(w http.ResponseWriter, r *http.Request, route *route) error {
	in := &request{Request: r, actor: actorDev, maxBody: maxSmall, out: http.NewResponseController(w)}
	if a.auth != nil {
		token, err := a.auth.Bearer(r, auth.AtLeast(route.role)...)
		if err != nil {
			return err
		}
		in.actor = token.ID
	}
	var err error
	if in.query, err = parseQuery(r.URL.RawQuery, route.query); err != nil {
		return err
	}
	if route.large {
		in.maxBody = maxLarge
	}
	r.Body = http.MaxBytesReader(w, r.Body, in.maxBody)
	if route.timeout < 0 {
		return route.handle(w, in)
	}
	return serveInTime(w, in, route)
}

// serveInTime bounds the handler and the writing of its answer; answer.finish lifts the deadline.
func serveInTime(w http.ResponseWriter, in *request, route *route) error {
	timeout := cmp.Or(route.timeout, defaultTimeout)
	if route.large {
		timeout += readTimeout
	}
	ctx, cancel := context.WithTimeout(in.Context(), timeout)
	defer cancel()
	in.Request = in.WithContext(ctx)
	_ = in.out.SetWriteDeadline(time.Now().Add(timeout + defaultTimeout))
	return route.handle(w, in)
}
