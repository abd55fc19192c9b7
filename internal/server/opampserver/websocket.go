package opampserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
)

const (
	statusNow       = websocket.StatusCode(0) // no Close frame: nobody would read it
	statusGoingAway = websocket.StatusGoingAway
	// outbox and outboxBytes bound what waits to be written to one connection; one message may always wait.
	outbox      = 64
	outboxBytes = 16 << 20
	// mostMalformed messages in a row end a connection.
	mostMalformed = 10
	// buffered is enough for a heartbeat; net/http's own buffers are 4 KiB each way.
	buffered = 512
)

// errClosed: the connection is being closed.
var errClosed = errors.New("connection is closed")

// conn is one WebSocket connection, with one goroutine, the reader. Another one writes while there is something to write.
type conn struct {
	source
	srv *Server
	ws  *websocket.Conn
	raw net.Conn

	opened  time.Time
	heard   atomic.Int64 // when the last message, or pong that was asked for, came
	reading atomic.Int64 // since when a message is arriving; 0: none is
	proven  atomic.Int64 // when a ping was answered last
	busy    atomic.Bool  // the reader handles a message, and reads no pong
	valid   atomic.Bool  // a message could be read
	pinging atomic.Bool
	given   uuid.UUID // to a second agent that came over this connection; the reader's

	mu      sync.Mutex // guards all below
	room    sync.Cond  // the queue is shorter
	agents  map[*agent]struct{}
	queue   [][]byte
	queued  int // bytes in queue
	writing bool
	closed  bool
	reason  Reason
}

// smallBuffers hijacks with buffers of its own: an idle connection keeps them for ever.
type smallBuffers struct {
	http.ResponseWriter
	raw net.Conn
}

func (w *smallBuffers) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.raw = c
	// What has arrived already must be in the new buffer, not behind it: the library resets the reader to the connection.
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), c), max(buffered, len(early)))
	_, err = r.Peek(len(early))
	return c, bufio.NewReadWriter(r, bufio.NewWriterSize(c, buffered)), errors.Join(err, rw.Writer.Flush())
}

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	release, ok := s.admitUpgrade(w, r)
	if !ok {
		return
	}
	defer release()
	principal, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	small := &smallBuffers{ResponseWriter: w}
	ws, err := websocket.Accept(small, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionNoContextTakeover})
	if err != nil {
		s.counters.refused.Add(1)
		return
	}
	ws.SetReadLimit(s.opts.MaxMessage + 1) // the header; counted after decompression
	c := &conn{srv: s, ws: ws, raw: small.raw, opened: time.Now(), source: source{principal: principal, remote: r.RemoteAddr, header: r.Header.Get(uidHeader)}}
	c.source.conn = c
	c.room.L = &c.mu
	c.heard.Store(c.opened.UnixNano())
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		_ = ws.Close(statusGoingAway, "the server ends")
		return
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	s.counters.accepted.Add(1)
	go c.run() // not the handler's goroutine: that holds the request and net/http's buffers
}

func (c *conn) run() {
	defer c.srv.wg.Done()
	malformed := 0
	for malformed < mostMalformed {
		readable, err := c.one()
		if err != nil {
			break
		}
		malformed++
		if readable {
			malformed = 0
		}
	}
	if malformed == mostMalformed {
		c.fail(ReasonProtocol, websocket.StatusInvalidFramePayloadData, "too many malformed messages")
	}
	c.leave()
}

// one reads and answers one message.
func (c *conn) one() (readable bool, err error) {
	kind, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return false, err
	}
	if kind != websocket.MessageBinary {
		c.fail(ReasonProtocol, websocket.StatusUnsupportedData, "binary messages only")
		return false, errMalformed
	}
	c.reading.Store(time.Now().UnixNano())
	data, done, err := c.srv.receive(r)
	c.reading.Store(0)
	if err != nil {
		if errors.Is(err, errFull) {
			c.fail(ReasonProtocol, websocket.StatusTryAgainLater, "too many large messages at once")
		}
		if errors.Is(err, websocket.ErrMessageTooBig) {
			c.fail(ReasonProtocol, websocket.StatusMessageTooBig, "message is too large")
		}
		return false, err
	}
	c.busy.Store(true)
	c.heard.Store(time.Now().UnixNano())
	answers, readable := c.handle(data)
	done()
	c.busy.Store(false) // before it writes: who does not read its answers is not proven alive
	if readable {
		c.valid.Store(true)
	}
	return readable, c.answer(answers)
}

func (c *conn) handle(frame []byte) (frames [][]byte, readable bool) {
	data, err := unframe(frame)
	var answers []*protobufs.ServerToAgent
	if err != nil {
		c.srv.counters.in[KindMalformed].Add(1)
		answers = one(badRequest(nil, err.Error()))
	} else {
		var malformed bool
		answers, malformed = c.srv.exchange(context.Background(), &c.source, data)
		readable = !malformed
	}
	for _, m := range answers {
		if frame, err := c.srv.encode([]byte{0}, m); err == nil {
			frames = append(frames, frame)
		}
	}
	return frames, readable
}

// fail closes the connection; the first reason counts. It does not wait: the reader does the rest.
func (c *conn) fail(reason Reason, code websocket.StatusCode, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.reason = true, reason
	c.room.Broadcast()
	c.srv.wg.Add(1) // the reader still counts
	go func() {
		defer c.srv.wg.Done()
		defer c.unlist() // not before: Shutdown cuts off whoever is listed
		if code == statusNow {
			_ = c.ws.CloseNow()
			return
		}
		_ = c.ws.Close(code, text)
	}()
}

// leave is the end of the reader: the connection is closed, and so are its agents.
func (c *conn) leave() {
	c.mu.Lock()
	lost := !c.closed
	if lost {
		c.closed, c.reason = true, ReasonLost
	}
	c.room.Broadcast()
	reason := c.reason
	agents := make([]*agent, 0, len(c.agents))
	for a := range c.agents {
		agents = append(agents, a)
	}
	c.mu.Unlock()
	if lost { // else fail closes, with a Close frame
		_ = c.ws.CloseNow()
		c.unlist()
	}
	s := c.srv
	s.mu.Lock()
	delete(s.assigned, c.given)
	s.mu.Unlock()
	for _, a := range agents {
		a.serial.Lock()
		if a.over(c) {
			s.offline(a, reason)
		}
		a.serial.Unlock()
	}
}

// unlist is the end of a closed connection.
func (c *conn) unlist() {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	delete(c.srv.conns, c)
}
