package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
)

const protobufType = "application/x-protobuf"

// poller is a link over plain HTTP: each exchange is a request, with one in flight at most.
type poller struct {
	settings Settings
	session  *Session
	messages chan *protobufs.ServerToAgent // capacity 1: the answer to the last exchange
}

func newPoller(s *Session, settings Settings) *poller {
	return &poller{settings: settings, session: s, messages: make(chan *protobufs.ServerToAgent, 1)}
}

func (p *poller) exchange(ctx context.Context, data []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.settings.Endpoint, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", protobufType)
	req.Header.Set("OpAMP-Instance-UID", p.session.identity.uid.String())
	resp, err := p.settings.Client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, p.settings.maxMessage()+1))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if int64(len(body)) > p.settings.maxMessage() {
		return fmt.Errorf("%w: larger than %d bytes", errMalformed, p.settings.maxMessage())
	}
	m, err := decodeMessage(body)
	if err != nil {
		return err // what was sent may not have arrived: it is sent again
	}
	select {
	case <-p.messages: // the answer before has not been looked at: the session is ending
	default:
	}
	p.messages <- m
	return nil
}

func (p *poller) incoming() <-chan *protobufs.ServerToAgent { return p.messages }
func (p *poller) lost() <-chan struct{}                     { return nil }
func (p *poller) reason() error                             { return nil }
func (p *poller) close(context.Context)                     { p.settings.Client.CloseIdleConnections() }

// parseRetryAfter reads seconds or a date (RFC 9110 section 10.2.3); 0 is neither, or in the past.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
