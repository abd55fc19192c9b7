package opampserver

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

const (
	contentType = "application/x-protobuf"
	uidHeader   = "OpAMP-Instance-UID"
	// worthwhile is the size from which a response is compressed.
	worthwhile = 1 << 10
)

// ServeHTTP takes upgrades to WebSocket and POSTs of messages (spec "Plain HTTP Transport").
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Method == http.MethodPost && mediaType == contentType:
		s.serveHTTP(w, r)
	case r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		s.serveWebSocket(w, r)
	case r.Method == http.MethodGet:
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		s.refuse(w, http.StatusUpgradeRequired, "an upgrade to WebSocket, or a POST of "+contentType)
	case r.Method == http.MethodPost:
		s.refuse(w, http.StatusUnsupportedMediaType, "the Content-Type must be "+contentType)
	default:
		w.Header().Set("Allow", "GET, POST")
		s.refuse(w, http.StatusMethodNotAllowed, "an upgrade to WebSocket, or a POST of "+contentType)
	}
}

func (s *Server) refuse(w http.ResponseWriter, code int, why string) {
	s.counters.refused.Add(1)
	http.Error(w, why, code)
}

// overloaded sends an agent away for a while, each for another one (spec "Throttling").
func (s *Server) overloaded(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(s.retryAfter().Seconds()))))
	s.refuse(w, http.StatusServiceUnavailable, why)
}

func (s *Server) retryAfter() time.Duration { return s.opts.RetryAfter + rand.N(s.opts.RetryAfter) }

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// admitUpgrade looks at the limits before anything is spent on an upgrade.
func (s *Server) admitUpgrade(w http.ResponseWriter, r *http.Request) (release func(), ok bool) {
	s.mu.Lock()
	closing, full := s.closing, len(s.conns) >= s.opts.MaxConnections
	s.mu.Unlock()
	switch {
	case closing:
		s.overloaded(w, "the server ends")
		return nil, false
	case full:
		s.overloaded(w, "too many connections")
		return nil, false
	}
	if !s.limiter.Allow() || !s.takeHandshake(r) {
		s.overloaded(w, "too many connections at once")
		return nil, false
	}
	return func() { <-s.handshakes }, true
}

// takeHandshake waits for its turn, for a while: a fleet that comes back all at once is served one after the other, and who is sent away
// is not heard of for half a minute.
func (s *Server) takeHandshake(r *http.Request) bool {
	select {
	case s.handshakes <- struct{}{}:
		return true
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return false
	}
	patience := time.NewTimer(s.opts.HandshakeWait)
	defer patience.Stop()
	select {
	case s.handshakes <- struct{}{}:
		return true
	case <-patience.C:
	case <-r.Context().Done():
	case <-s.stop:
	}
	return false
}

func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (Principal, bool) {
	p, err := s.fleet.Authenticate(r)
	if err == nil {
		return p, true
	}
	status := &StatusError{Code: http.StatusUnauthorized, Message: "not authenticated"}
	_ = errors.As(err, &status)
	if status.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(status.RetryAfter.Seconds()))))
	}
	if status.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	s.log.Debug("a request is refused", "remote", r.RemoteAddr, "status", status.Code)
	s.refuse(w, status.Code, status.Message)
	return Principal{}, false
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case s.requests <- struct{}{}:
		defer func() { <-s.requests }()
	default:
		s.overloaded(w, "too many requests at once")
		return
	}
	if s.isClosing() {
		s.overloaded(w, "the server ends")
		return
	}
	principal, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	data, done, ok := s.body(w, r)
	if !ok {
		return
	}
	from := &source{principal: principal, remote: r.RemoteAddr, header: r.Header.Get(uidHeader)}
	answers, malformed := s.exchange(r.Context(), from, data)
	done()
	s.respond(w, r, answers[0], malformed)
}

// body reads the request, within the limits before and after decompression.
func (s *Server) body(w http.ResponseWriter, r *http.Request) (data []byte, done func(), ok bool) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.opts.MessageTimeout))
	// After an error the deadline stays: net/http reads on, to keep the connection, and takes it off then.
	limit := s.opts.MaxMessage
	if r.ContentLength > limit {
		s.refuse(w, http.StatusRequestEntityTooLarge, "the message is too large")
		return nil, nil, false
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, limit)
	switch encoding := strings.ToLower(r.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
	case "gzip":
		unzip, err := gzip.NewReader(body)
		if err != nil {
			s.malformed(w, r)
			return nil, nil, false
		}
		defer func() { _ = unzip.Close() }()
		body = unzip
	default:
		w.Header().Set("Accept-Encoding", "gzip")
		s.refuse(w, http.StatusUnsupportedMediaType, "the Content-Encoding must be gzip or identity")
		return nil, nil, false
	}
	data, done, err := s.receive(io.LimitReader(body, limit+1))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), err == nil && int64(len(data)) > limit:
		if done != nil {
			done()
		}
		s.refuse(w, http.StatusRequestEntityTooLarge, "the message is too large")
	case errors.Is(err, errFull):
		s.overloaded(w, errFull.Error())
	case err != nil:
		s.malformed(w, r)
	default:
		_ = control.SetReadDeadline(time.Time{})
		return data, done, true
	}
	return nil, nil, false
}

func (s *Server) malformed(w http.ResponseWriter, r *http.Request) {
	s.counters.in[KindMalformed].Add(1)
	s.respond(w, r, badRequest(nil, "the body cannot be read"), true)
}

var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func (s *Server) respond(w http.ResponseWriter, r *http.Request, m *protobufs.ServerToAgent, malformed bool) {
	data, err := s.encode(nil, m)
	if err != nil {
		s.refuse(w, http.StatusInternalServerError, "the answer cannot be made")
		return
	}
	s.countOut(data)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
	w.Header().Set("Content-Type", contentType)
	if len(data) >= worthwhile && acceptsGzip(r.Header.Values("Accept-Encoding")) {
		var b bytes.Buffer
		z := zippers.Get().(*gzip.Writer)
		z.Reset(&b)
		_, _ = z.Write(data) // a bytes.Buffer takes everything
		_ = z.Close()
		zippers.Put(z)
		w.Header().Set("Content-Encoding", "gzip")
		data = b.Bytes()
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if malformed {
		w.WriteHeader(http.StatusBadRequest)
	}
	_, _ = w.Write(data) // the agent that does not get it asks again
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3).
func acceptsGzip(values []string) bool {
	for _, coding := range strings.Split(strings.Join(values, ","), ",") {
		name, params, _ := strings.Cut(coding, ";")
		if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
			continue
		}
		weight := strings.TrimPrefix(strings.ReplaceAll(strings.ToLower(params), " ", ""), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		return weight == "" || err == nil && q > 0
	}
	return false
}
