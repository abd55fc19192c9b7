package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
)

const (
	// pingEvery and pongLimit find a half-open connection: without them the kernel takes a quarter of an hour.
	pingEvery = 30 * time.Second
	pongLimit = 20 * time.Second
)

// socket is a link over WebSocket. Two goroutines of its own, a reader and a pinger, end with the connection.
type socket struct {
	conn     *websocket.Conn
	messages chan *protobufs.ServerToAgent
	cancel   context.CancelFunc
	gone     chan struct{} // closed by the reader, after why is set
	why      error
	pinger   chan struct{} // closed when the pinger has ended
}

// dialWebSocket connects; the error carries the server's Retry-After.
func dialWebSocket(ctx context.Context, settings Settings) (*socket, error) {
	dialing, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, resp, err := websocket.Dial(dialing, settings.Endpoint, &websocket.DialOptions{
		HTTPClient: settings.Client, CompressionMode: websocket.CompressionNoContextTakeover,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, statusError(resp)
		}
		return nil, err
	}
	conn.SetReadLimit(settings.maxMessage()) // counted after decompression
	ctx, cancelConn := context.WithCancel(context.WithoutCancel(ctx))
	s := &socket{
		conn: conn, messages: make(chan *protobufs.ServerToAgent), cancel: cancelConn,
		gone: make(chan struct{}), pinger: make(chan struct{}),
	}
	go s.read(ctx)
	go s.ping(ctx)
	return s, nil
}

func (s *socket) read(ctx context.Context) {
	defer close(s.gone)
	for {
		kind, data, err := s.conn.Read(ctx)
		if err != nil {
			s.why = fmt.Errorf("connection lost: %w", err)
			return
		}
		if kind != websocket.MessageBinary {
			s.why = fmt.Errorf("%w: a text message", errMalformed)
			_ = s.conn.Close(websocket.StatusUnsupportedData, "binary messages only")
			return
		}
		m, err := decodeFrame(data)
		if err != nil {
			m = nil
		}
		select {
		case s.messages <- m:
		case <-ctx.Done():
			s.why = ctx.Err()
			return
		}
	}
}

func (s *socket) ping(ctx context.Context) {
	defer close(s.pinger)
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.gone:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
			pong, cancel := context.WithTimeout(ctx, pongLimit)
			err := s.conn.Ping(pong)
			cancel()
			if err != nil {
				_ = s.conn.CloseNow() // the reader sees it
				return
			}
		}
	}
}

func (s *socket) exchange(ctx context.Context, data []byte) error {
	frame := make([]byte, 1, 1+len(data)) // header 0
	return s.conn.Write(ctx, websocket.MessageBinary, append(frame, data...))
}

func (s *socket) incoming() <-chan *protobufs.ServerToAgent { return s.messages }
func (s *socket) lost() <-chan struct{}                     { return s.gone }
func (s *socket) reason() error                             { return s.why }

// close sends a Close frame and waits for the server's as long as ctx allows.
func (s *socket) close(ctx context.Context) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = s.conn.Close(websocket.StatusNormalClosure, "")
	}()
	// Close needs somebody who reads: messages that still arrive are not wanted any more.
	for done := false; !done; {
		select {
		case <-s.messages:
		case <-closed:
			done = true
		case <-ctx.Done():
			_ = s.conn.CloseNow()
			done = true
		}
	}
	s.cancel()
	_ = s.conn.CloseNow()
	<-closed
	<-s.gone
	<-s.pinger
}

var errUnauthorized = errors.New("the server refuses the credentials")

// statusError is an answer that is neither an upgrade nor a message.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("the server answers %s", resp.Status)
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", errUnauthorized, err)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return &unavailableError{message: resp.Status, retryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return err
}
