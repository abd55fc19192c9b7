package opampserver

import (
	"context"
	"time"

	"github.com/coder/websocket"
)

// push queues frames behind what waits, if there is room.
func (c *conn) push(frames [][]byte) error {
	bytes := 0
	for _, f := range frames {
		bytes += len(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ErrOffline
	case len(c.queue)+len(frames) > outbox, c.queued > 0 && c.queued+bytes > outboxBytes:
		return ErrBusy
	}
	c.queue = append(c.queue, frames...)
	c.queued += bytes
	if !c.writing {
		c.writing = true
		c.srv.wg.Add(1) // the reader still counts: closed is set before it ends
		go func() {
			defer c.srv.wg.Done()
			c.drain()
		}()
	}
	return nil
}

// answer writes frames, from the reader's goroutine if nobody else writes. Who does not read answers is not read from.
func (c *conn) answer(frames [][]byte) error {
	c.mu.Lock()
	for _, f := range frames {
		c.queue = append(c.queue, f)
		c.queued += len(f)
	}
	if !c.writing && len(frames) > 0 {
		c.writing = true
		c.mu.Unlock()
		c.drain()
		c.mu.Lock()
	}
	for !c.closed && len(c.queue) >= outbox {
		c.room.Wait()
	}
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	return nil
}

// drain writes until the queue is empty.
func (c *conn) drain() {
	for {
		c.mu.Lock()
		if c.closed || len(c.queue) == 0 {
			c.queue, c.queued, c.writing = nil, 0, false
			c.room.Broadcast()
			c.mu.Unlock()
			return
		}
		frame := c.queue[0]
		c.queue[0] = nil
		c.queue = c.queue[1:]
		c.mu.Unlock()
		// Not a context's timeout: that closes the connection by itself, and the reader would not know why.
		timeout := time.AfterFunc(c.srv.opts.WriteTimeout, func() { c.fail(ReasonSlow, statusNow, "") })
		err := c.ws.Write(context.Background(), websocket.MessageBinary, frame)
		timeout.Stop()
		if err != nil {
			c.fail(ReasonLost, statusNow, "")
		} else {
			c.srv.countOut(frame[1:])
		}
		c.mu.Lock()
		c.queued -= len(frame)
		c.room.Broadcast()
		c.mu.Unlock()
	}
}

func (c *conn) heardAt() time.Time { return time.Unix(0, c.heard.Load()) }

// alone says whether one agent at most uses the connection.
func (c *conn) alone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.agents) <= 1 && !c.closed
}

// hasRoom says whether the connection may carry a, too.
func (c *conn) hasRoom(a *agent) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.agents[a]
	return known || len(c.agents) < c.srv.opts.MaxAgentsPerConnection
}

func (c *conn) attach(a *agent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.agents == nil {
		c.agents = map[*agent]struct{}{}
	}
	c.agents[a] = struct{}{}
}

func (c *conn) detach(a *agent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.agents, a)
}

// over says whether the agent is connected over c.
func (a *agent) over(c *conn) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conn == c
}
