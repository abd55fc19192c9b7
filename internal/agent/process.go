package agent

import (
	"context"
	"sync"
	"time"
)

// lingerFor is how long a session waits, in a reload, for the extension of the new configuration. Extensions start first,
// so what takes longer has no such extension any more.
const lingerFor = 30 * time.Second

// sessions are the sessions of this process, by the id of the extension that they belong to: the only state of this
// package. It lives here because extensions are built anew at each reload, and nothing else outlives it.
var sessions = struct {
	mu   sync.Mutex // guards byID and what it holds
	byID map[string]*held
}{byID: map[string]*held{}}

type held struct {
	session *Session
	opts    Options
	linger  *time.Timer // set while nobody uses the session
}

// Acquire returns the session that the extension of that id has left behind in a reload, else a new one. A session whose
// storage or configured UID has changed is ended first.
func Acquire(id string, opts Options, settings Settings, restart func()) (*Session, error) {
	sessions.mu.Lock()
	defer sessions.mu.Unlock()
	if h := sessions.byID[id]; h != nil {
		delete(sessions.byID, id)
		h.stopLinger()
		if h.opts.StorageDirectory == opts.StorageDirectory && h.opts.InstanceUID == opts.InstanceUID {
			h.session.Use(opts.Logger, settings, restart)
			h.opts = opts
			sessions.byID[id] = h
			return h.session, nil
		}
		closeSoon(h.session)
	}
	s, err := Open(opts, settings)
	if err != nil {
		return nil, err
	}
	s.Use(opts.Logger, settings, restart)
	sessions.byID[id] = &held{session: s, opts: opts}
	return s, nil
}

// Release gives a session back: in a reload it waits for the next Acquire, else it says goodbye and ends.
func Release(ctx context.Context, id string, reload bool) error {
	sessions.mu.Lock()
	h := sessions.byID[id]
	if h == nil {
		sessions.mu.Unlock()
		return nil
	}
	if reload {
		h.linger = time.AfterFunc(lingerFor, func() { expire(id, h) })
		sessions.mu.Unlock()
		return nil
	}
	delete(sessions.byID, id)
	h.stopLinger()
	sessions.mu.Unlock()
	return h.session.Close(ctx)
}

// expire ends a session that nobody has come for.
func expire(id string, h *held) {
	sessions.mu.Lock()
	abandoned := sessions.byID[id] == h && h.linger != nil
	if abandoned {
		delete(sessions.byID, id)
	}
	sessions.mu.Unlock()
	if abandoned {
		closeSoon(h.session)
	}
}

func (h *held) stopLinger() {
	if h.linger != nil {
		h.linger.Stop()
		h.linger = nil
	}
}

func closeSoon(s *Session) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*goodbyeLimit)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		s.logger().Warn(err.Error())
	}
}
