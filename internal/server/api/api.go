package api

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
)

// Options are what the API works with.
type Options struct {
	Store   store.Store
	Control Control
	// Auth is nil on a server without tokens: whoever reaches it may do everything, but only under a loopback name.
	Auth *auth.Keeper
	Log  *slog.Logger
	// HideAfter leaves agents out of lists that have been away for longer; 0 leaves out none.
	HideAfter time.Duration
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// API answers everything under /api/v1. Close it to end the streams of changes, before or while its server shuts down.
type API struct {
	store     store.Store
	control   Control
	auth      *auth.Keeper
	log       *slog.Logger
	now       func() time.Time
	hideAfter time.Duration
	hub       *hub
	routes    []route
	mux       *http.ServeMux
	origins   http.CrossOriginProtection
	// keepAlive is how often a stream without changes says that it is there.
	keepAlive time.Duration
	comparing chan struct{} // holds whoever compares two versions
}

const prefix = "/api/v1"

// New makes the API. It starts nothing until somebody listens to changes.
func New(o Options) *API {
	a := &API{
		store: o.Store, control: o.Control, auth: o.Auth, log: o.Log, now: o.Now, hideAfter: o.HideAfter, hub: newHub(o.Store, o.Log),
		mux: http.NewServeMux(), keepAlive: 15 * time.Second, comparing: make(chan struct{}, 1),
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.routes = a.table()
	a.register()
	return a
}

// Close ends all streams of changes and waits for what feeds them. It may be called twice.
func (a *API) Close() { a.hub.close() }

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &answer{ResponseWriter: w}
	h := out.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	defer out.finish()
	defer a.recovered(out, r)
	if err := a.admit(r); err != nil {
		a.fail(out, r, err)
		return
	}
	a.mux.ServeHTTP(out, singleName(r))
}

// answer knows whether an answer has begun, and whether it is a problem.
type answer struct {
	http.ResponseWriter
	begun, failed bool
}

func (w *answer) WriteHeader(code int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(code)
}

func (w *answer) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// finish sends what is there and lifts the deadline: it belongs to the connection, which others use after.
func (w *answer) finish() {
	c := http.NewResponseController(w.ResponseWriter)
	_ = c.Flush()
	_ = c.SetWriteDeadline(time.Time{})
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// admit refuses what no route should see: requests that a web page of another site makes, and paths that are not plain.
func (a *API) admit(r *http.Request) error {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" || a.origins.Check(r) != nil {
		return refuse(http.StatusForbidden, "the request comes from a page of another site")
	}
	if a.auth == nil && !IsLoopback(r.Host) {
		return refuse(http.StatusForbidden,
			"without tokens the server answers only under a loopback name such as localhost or 127.0.0.1: run it without --dev")
	}
	if !isPlain(r.URL) {
		return errNoRoute
	}
	return nil
}

var errNoRoute = errors.New("no such route")

// isPlain says whether no segment of the path is empty, a dot or two, or has control characters or backslashes, however it is
// escaped. ServeMux would redirect some of these.
func isPlain(u *url.URL) bool {
	escaped, found := strings.CutPrefix(u.EscapedPath(), "/")
	if !found {
		return false
	}
	for part := range strings.SplitSeq(escaped, "/") {
		text, err := url.PathUnescape(part)
		if err != nil || text == "" || text == "." || text == ".." {
			return false
		}
		if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' || c == '\uFFFD' }) {
			return false
		}
	}
	return true
}

// singleName makes the name of a configuration one segment of the path, so that team/base and team%2Fbase are the same. What
// ends like a part of a configuration is that part: to reach a configuration called a/versions or a/diff, write a%2Fversions.
func singleName(r *http.Request) *http.Request {
	const base = prefix + "/configurations/"
	rest, found := strings.CutPrefix(r.URL.EscapedPath(), base)
	if !found {
		return r
	}
	parts := strings.Split(rest, "/")
	n := len(parts)
	last := parts[n-1]
	switch {
	case n >= 2 && (last == "versions" || last == "diff"):
		n--
	case n >= 3 && parts[n-2] == "versions" && strings.Trim(last, "0123456789") == "":
		n -= 2
	}
	name := strings.Join(parts[:n], "%2F")
	u := *r.URL
	u.RawPath = base + strings.Join(append([]string{name}, parts[n:]...), "/")
	copied := *r
	copied.URL = &u
	return &copied
}
