package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/apiv1"
)

// fakeServer answers the HTTP API with documents, and notes what was asked.
type fakeServer struct {
	url string

	mu   sync.Mutex // guards seen
	seen []string
}

// answers are by method and path, as patterns of http.ServeMux: a document, a text, a problem, or a handler.
type answers map[string]any

func newFakeServer(t *testing.T, routes answers) *fakeServer {
	t.Helper()
	f := &fakeServer{}
	mux := http.NewServeMux()
	for pattern, answer := range routes {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /api/v1"+path, func(w http.ResponseWriter, r *http.Request) { write(w, r, answer) })
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		f.note(strings.TrimSpace(r.Method + " " + strings.TrimPrefix(r.URL.RequestURI(), "/api/v1") + " " + string(body)))
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

func write(w http.ResponseWriter, r *http.Request, answer any) {
	switch a := answer.(type) {
	case func(http.ResponseWriter, *http.Request):
		a(w, r)
	case string:
		_, _ = io.WriteString(w, a)
	case apiv1.Problem:
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(a.Status)
		_ = json.NewEncoder(w).Encode(a)
	default:
		_ = json.NewEncoder(w).Encode(a)
	}
}

func (f *fakeServer) note(line string) {
	if strings.HasPrefix(line, "GET /events") {
		return // when it comes is not certain
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, line)
}

func (f *fakeServer) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.seen...)
}

// run runs one command line against the server; words are parted by spaces.
func (f *fakeServer) run(t *testing.T, line string, more ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return collie(ctx, append(append(strings.Fields(line), more...), "--server", f.url)...)
}

// inTurn answers with one document after the other, and then with the last one.
func inTurn[T any](documents ...T) func(http.ResponseWriter, *http.Request) {
	var mu sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		write(w, r, documents[0])
		if len(documents) > 1 {
			documents = documents[1:]
		}
	}
}

// announce is a stream of changes of one kind.
func announce(kind string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for pause(r.Context(), 20*time.Millisecond, nil) == nil {
			_, _ = io.WriteString(w, "event: "+kind+"\ndata: {\"key\": \"x\", \"revision\": 1}\nid: 1\n\n")
			w.(http.Flusher).Flush()
		}
	}
}

// file writes a file for -f.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in.yaml")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// quiet drops what a server logs.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// before is a time that is this long ago for some seconds to come.
func before(d time.Duration) time.Time { return time.Now().Add(-d - time.Second) }
