package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
)

// refusal is an error that says itself how it is answered.
type refusal struct {
	status     int
	detail     string
	retryAfter int // seconds
}

func (r *refusal) Error() string { return r.detail }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, detail: fmt.Sprintf(format, args...)}
}

func invalid(err error) error { return refuse(http.StatusBadRequest, "%s", err) }

// known maps the errors of stores and Control to what they are answered with.
var known = []struct {
	err    error
	status int
	advice string
}{
	{store.ErrNotFound, http.StatusNotFound, ""},
	{store.ErrUnfinished, http.StatusConflict, "wait for its end, or abort it"},
	{store.ErrConflict, http.StatusConflict, "read it again, then decide"},
	{store.ErrInvalid, http.StatusBadRequest, ""},
	{fleet.ErrRolloutState, http.StatusConflict, ""},
	{ErrCapability, http.StatusConflict, "see its capabilities"},
	{ErrConnected, http.StatusConflict, ""},
	{ErrNoTokens, http.StatusConflict, ""},
	{ErrAway, http.StatusConflict, "try again when it is"},
}

// explain says how an error is answered. False: it is nobody's business but the log's.
func explain(err error) (*refusal, bool) {
	var r *refusal
	if errors.As(err, &r) {
		return r, true
	}
	var refused *auth.Refused
	if errors.As(err, &refused) {
		return &refusal{status: refused.Code, detail: refused.Message, retryAfter: int(math.Ceil(refused.RetryAfter.Seconds()))}, true
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			detail := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", "; "), store.ErrInvalid.Error()+": ") // the status says that
			if k.advice != "" {
				detail += ": " + k.advice
			}
			return &refusal{status: k.status, detail: detail}, true
		}
	}
	switch {
	case errors.Is(err, errNoRoute):
		return &refusal{status: http.StatusNotFound, detail: "there is no such route: see " + prefix + "/openapi.yaml"}, true
	case errors.Is(err, ErrBusy):
		return &refusal{status: http.StatusServiceUnavailable, detail: "the server is busy: try again", retryAfter: 1}, true
	case errors.Is(err, context.DeadlineExceeded):
		return &refusal{status: http.StatusServiceUnavailable, detail: "this took too long: try again", retryAfter: 5}, true
	}
	return nil, false
}

// fail answers an error, unless an answer has begun.
func (a *API) fail(w *answer, r *http.Request, err error) {
	reason, public := explain(err)
	if !public {
		id := strings.ToLower(rand.Text()[:12])
		reason = &refusal{
			status: http.StatusInternalServerError,
			detail: fmt.Sprintf("the server failed; its log says why, at request_id %s", id),
		}
		if r.Context().Err() == nil || errors.Is(err, errPanic) { // else the client has gone
			a.log.Error("request failed", slog.String("request_id", id), slog.String("method", r.Method),
				slog.String("path", r.URL.Path), slog.Any("error", err))
		}
	}
	if w.begun {
		return
	}
	w.failed = true
	if reason.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(reason.retryAfter))
	}
	if reason.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="collie"`)
	}
	write(w, reason.status, "application/problem+json", encode(apiv1.Problem{
		Type: "about:blank", Title: http.StatusText(reason.status), Status: reason.status,
		Detail: strings.ToValidUTF8(reason.detail, "\uFFFD"),
	}))
}

// recovered answers a panic. Where an answer has begun, the connection is cut: half of one must not look whole.
func (a *API) recovered(w *answer, r *http.Request) {
	cause := recover()
	switch {
	case cause == nil:
		return
	case cause == http.ErrAbortHandler:
		panic(cause)
	}
	a.fail(w, r, fmt.Errorf("%w: %v\n%s", errPanic, cause, debug.Stack()))
	if w.begun && !w.failed {
		panic(http.ErrAbortHandler)
	}
}

var errPanic = errors.New("panic")

// encode is JSON as it is sent. The documents of apiv1 hold nothing that cannot be encoded.
func encode(document any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(document); err != nil {
		panic(err)
	}
	return []byte(b.String())
}

func writeJSON(w http.ResponseWriter, status int, document any) error {
	write(w, status, "application/json", encode(document))
	return nil
}

// write answers. That the client does not take it is no error of ours.
func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
