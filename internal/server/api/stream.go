package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/store"
)

// streamWrite bounds each write to a listener: one that takes nothing is gone.
const streamWrite = 10 * time.Second

// streamChanges is server-sent events. It first listens, then reads what was missed from the store, then goes on with what it
// heard meanwhile: nothing is lost between, and what comes twice is told apart by its revision.
func (a *API) streamChanges(w http.ResponseWriter, r *request) error {
	revision, err := a.store.Revision(r.Context())
	if err != nil {
		return err
	}
	since, err := r.since(revision)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return nil
	}
	l, ok := a.hub.listen(revision)
	if !ok {
		return ErrBusy
	}
	defer a.hub.leave(l)
	s := &stream{w: w, out: r.out, last: since}
	_ = r.out.SetReadDeadline(time.Time{})
	// An id without data tells the browser where it is.
	if !s.write(fmt.Sprintf("retry: 2000\nid: %d\n\n", since)) || !a.replay(r, s) {
		return nil
	}
	a.follow(r, l, s)
	return nil
}

// since is where the listener wants to begin. A revision that does not exist is of another database: then everything is new.
func (r *request) since(revision int64) (int64, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return revision, nil
	}
	since, err := strconv.ParseInt(text, 10, 64)
	if err != nil || since < 0 {
		return 0, refuse(http.StatusBadRequest, "Last-Event-ID: want the id of an event of this stream, or nothing")
	}
	if since > revision {
		return 0, nil
	}
	return since, nil
}

// replay sends what changed since. False: the stream is over.
func (a *API) replay(r *request, s *stream) bool {
	for {
		changes, err := a.store.Changes(r.Context(), s.last, pollBatch)
		if err != nil || !s.send(changes) {
			return false
		}
		if len(changes) < pollBatch {
			return true
		}
	}
}

// follow goes on until the client leaves, is too slow, or may no longer listen.
func (a *API) follow(r *request, l *listener, s *stream) {
	alive := time.NewTicker(a.keepAlive)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case changes, open := <-l.batches:
			if !open || !s.send(changes) {
				return
			}
		case <-alive.C:
			if !a.mayListen(r) || !s.write(": alive\n\n") {
				return
			}
		}
	}
}

// mayListen ends the streams of tokens that were revoked or have expired.
func (a *API) mayListen(r *request) bool {
	if a.auth == nil {
		return true
	}
	_, err := a.auth.Bearer(r.Request, auth.AtLeast(apiv1.RoleViewer)...)
	return err == nil
}

// stream writes events to one listener.
type stream struct {
	w   http.ResponseWriter
	out *http.ResponseController
	// last is the revision sent last.
	last int64
}

// send writes the changes that were not sent yet, in one go.
func (s *stream) send(changes []store.Change) bool {
	var b strings.Builder
	for _, c := range changes {
		if c.Revision <= s.last {
			continue
		}
		s.last = c.Revision
		data, _ := json.Marshal(struct { // of these types it cannot fail
			Key      string `json:"key"`
			Deleted  bool   `json:"deleted"`
			Revision int64  `json:"revision"`
		}{c.Key, c.Deleted, c.Revision})
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", c.Revision, c.Kind, data)
	}
	return b.Len() == 0 || s.write(b.String())
}

func (s *stream) write(text string) bool {
	_ = s.out.SetWriteDeadline(time.Now().Add(streamWrite))
	_, err := s.w.Write([]byte(text))
	return err == nil && s.out.Flush() == nil
}
