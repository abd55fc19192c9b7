package agent

import (
	"math/rand/v2"
	"time"
)

const (
	firstRetry = time.Second
	maxRetry   = 30 * time.Second // spec "Throttling": the recommended minimum where the server says nothing
	// stableAfter is how long a connection must have worked for its loss to count as a first one.
	stableAfter = 10 * time.Second
	// maxRetryAfter bounds what a server can ask for.
	maxRetryAfter = time.Hour
)

// backoff says how long to wait before the next connection. With a first wait of at least 0.75 s that doubles each time
// there are never more than five connections in ten seconds, whatever the server does.
type backoff struct {
	failures int
}

// next is called when a connection has ended: how long it had worked, and what the server asked for (0: nothing).
func (b *backoff) next(worked, retryAfter time.Duration) time.Duration {
	if worked >= stableAfter {
		b.failures = 0
	}
	wait := maxRetry
	if b.failures < 5 {
		wait = firstRetry << b.failures
	}
	b.failures++
	own := time.Duration(float64(wait) * (0.75 + 0.5*rand.Float64()))
	if retryAfter <= 0 {
		return own
	}
	// Everybody was told the same time: spread behind it, never before it. A time shorter than the own one is not taken,
	// or a server could be called as often as it asks for.
	asked := min(retryAfter, maxRetryAfter)
	return max(own, asked+rand.N(firstRetry+asked/10))
}
