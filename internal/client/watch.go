package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

const (
	firstPause = time.Second
	lastPause  = 10 * time.Second
	maxLine    = 64 << 10
)

// Change says that something changed on the server.
type Change struct {
	// Kind is agent, configuration or rollout. It is empty after each connect, before which anything may have changed.
	Kind string `json:"-"`
	// Key is the agent's uid, the configuration's name or the rollout's id.
	Key      string `json:"key"`
	Deleted  bool   `json:"deleted"`
	Revision int64  `json:"revision"`
}

// Watch calls f for each change until the end of the context, one call at a time, and connects again when the stream ends. It
// returns the context's error, or an *Error or ErrAnswer if there is no such stream for this token.
func (c *Client) Watch(ctx context.Context, f func(Change)) error {
	s := &stream{client: c, f: f, pause: firstPause}
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var answer *Error
		if errors.As(err, &answer) && answer.Status < http.StatusInternalServerError && answer.Status != http.StatusTooManyRequests ||
			errors.Is(err, ErrAnswer) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.pause):
			s.pause = min(2*s.pause, lastPause)
		}
	}
}

// stream is what lasts from one connection to the next.
type stream struct {
	client *Client
	f      func(Change)
	lastID string
	pause  time.Duration
}

// follow reads one connection to its end.
func (s *stream) follow(ctx context.Context) error {
	response, err := s.client.open(ctx, request{
		method: http.MethodGet, path: []string{"events"}, accept: "text/event-stream", lastID: s.lastID,
	})
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); kind != "text/event-stream" {
		return fmt.Errorf("GET %s: %w: content type %q", response.Request.URL.Redacted(), ErrAnswer, kind)
	}
	s.pause = firstPause
	s.f(Change{})
	return s.read(response.Body)
}

// read takes lines apart as the HTML standard says (9.2.6), but for fields that the server does not send.
func (s *stream) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var kind, data string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			kind = value
		case "data":
			data += value
		case "id":
			s.lastID = value
		case "":
			if lines.Text() == "" {
				s.dispatch(kind, data)
				kind, data = "", ""
			}
		}
	}
	return lines.Err()
}

// dispatch leaves out what it cannot read, such as what a newer server says.
func (s *stream) dispatch(kind, data string) {
	change := Change{}
	if kind == "" || json.Unmarshal([]byte(data), &change) != nil {
		return
	}
	change.Kind = kind
	s.f(change)
}
