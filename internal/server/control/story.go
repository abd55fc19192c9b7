package control

import "time"

// An agent may make eventBurst events at once, and then one each eventEvery: a rollout makes some ten of each agent, and one that changes
// with every message would fill the disk.
const (
	eventBurst = 200
	eventEvery = 10 * time.Second
)

// story is the token bucket of one agent's events.
type story struct {
	full    time.Time // when it is full again; eventBurst*eventEvery ahead it is empty
	leftOut int
}

// admit says whether one more event is kept, and how many were not since the last one that was.
func (s *story) admit(now time.Time) (leftOut int, ok bool) {
	if s.full.Before(now) {
		s.full = now
	}
	if s.full.Add(eventEvery).Sub(now) > eventBurst*eventEvery {
		s.leftOut++
		return 0, false
	}
	s.full = s.full.Add(eventEvery)
	leftOut, s.leftOut = s.leftOut, 0
	return leftOut, true
}
