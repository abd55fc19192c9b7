package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
)

// Error is an answer of the server that is not success.
type Error struct {
	// Status is that of HTTP.
	Status int
	// Detail says what is wrong, in the server's words where it has any.
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// IsStatus says whether an error is an answer with this status.
func IsStatus(err error, status int) bool {
	var answer *Error
	return errors.As(err, &answer) && answer.Status == status
}

// ErrAnswer is what came back when it was not from this API.
var ErrAnswer = errors.New("not an answer of the API")

// request is one call of the API.
type request struct {
	method string
	// path are the segments after /api/v1, as they are before they are escaped.
	path   []string
	query  url.Values
	body   any
	accept string
	lastID string
	// tag is what must be there for the request to be carried out: an ETag, Absent, or empty for anything.
	tag string
	// wait is how long the server was asked to wait before it answers.
	wait time.Duration
}

// send makes a request and reads the answer: into a *string as text, into anything else as JSON, and into nil not at all. It
// returns the answer's ETag.
func (c *Client) send(ctx context.Context, r request, answer any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+r.wait)
	defer cancel()
	response, err := c.open(ctx, r)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := bounded(response.Body, maxAnswer)
	if err != nil {
		return "", fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	if text, ok := answer.(*string); ok {
		*text = string(content)
	} else if answer != nil {
		if err := json.Unmarshal(content, answer); err != nil {
			return "", fmt.Errorf("%s %s: %w: %w", r.method, response.Request.URL.Redacted(), ErrAnswer, err)
		}
	}
	return response.Header.Get("ETag"), nil
}

// open returns an answer of success, whose body the caller closes.
func (c *Client) open(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, problem(response)
}

func (c *Client) request(ctx context.Context, r request) (*http.Request, error) {
	target, err := c.url(r)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	if r.body != nil {
		content, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(content)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	accept := r.accept
	if accept == "" {
		accept = "application/json"
	}
	ifMatch, ifNoneMatch := r.tag, ""
	if r.tag == Absent {
		ifMatch, ifNoneMatch = "", "*"
	}
	for key, value := range map[string]string{
		"Accept": accept, "If-Match": ifMatch, "If-None-Match": ifNoneMatch, "Last-Event-ID": r.lastID,
	} {
		if value != "" {
			req.Header.Set(key, value)
		}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// url escapes each segment, slashes included. Segments that a path cannot hold would name another route.
func (c *Client) url(r request) (string, error) {
	var b strings.Builder
	b.WriteString(c.base + "/api/v1")
	for _, segment := range r.path {
		if segment == "" || segment == "." || segment == ".." {
			return "", fmt.Errorf("%q is no name", segment)
		}
		b.WriteString("/" + url.PathEscape(segment))
	}
	if len(r.query) > 0 {
		b.WriteString("?" + r.query.Encode())
	}
	return b.String(), nil
}

// problem reads an error from an answer; one that is no problem document is known by its status alone.
func problem(response *http.Response) error {
	e := &Error{Status: response.StatusCode}
	var document apiv1.Problem
	content, err := bounded(response.Body, maxProblem)
	if err == nil && json.Unmarshal(content, &document) == nil {
		e.Detail = document.Detail
		if e.Detail == "" {
			e.Detail = document.Title
		}
	}
	if e.Detail == "" && bytes.Contains(content, []byte("HTTP request to an HTTPS server")) {
		e.Detail = "the server speaks https only: write its URL with https://"
	}
	if e.Detail == "" {
		e.Detail = "HTTP " + response.Status
		if location := response.Header.Get("Location"); location != "" {
			e.Detail += " to " + location
		}
		if response.StatusCode == http.StatusNotFound {
			e.Detail += fmt.Sprintf(": what answers at %s is no collie server", response.Request.URL.Host)
		}
	}
	return e
}

func bounded(r io.Reader, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(content)) > limit {
		return nil, fmt.Errorf("longer than %d bytes", limit)
	}
	return content, err
}
