package auth

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	failureBurst  = 20
	failureRefill = time.Second
	maxAddresses  = 10_000
)

// limiter is a token bucket of failures for each address; IPv6 addresses count by their /64, which one host has for itself.
type limiter struct {
	// mu guards full.
	mu sync.Mutex
	// full is when the bucket of an address is full again; further away than burst*refill it is empty.
	full map[netip.Prefix]time.Time
}

func newLimiter() *limiter { return &limiter{full: map[netip.Prefix]time.Time{}} }

// failed counts a failure, or returns how long to wait if there are too many; those do not count.
func (l *limiter) failed(remote string, now time.Time) time.Duration {
	key := prefix(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	full, known := l.full[key]
	if full.Before(now) {
		full = now
	}
	full = full.Add(failureRefill)
	if wait := full.Sub(now) - failureBurst*failureRefill; wait > 0 {
		return wait
	}
	if !known && len(l.full) >= maxAddresses {
		l.evict(now)
	}
	l.full[key] = full
	return 0
}

// evict makes room: it forgets buckets among a few that are full again, else any one.
func (l *limiter) evict(now time.Time) {
	looked := 0
	var last netip.Prefix
	for key, full := range l.full {
		if last = key; !full.After(now) {
			delete(l.full, key)
		}
		if looked++; looked == 16 {
			break
		}
	}
	if len(l.full) >= maxAddresses {
		delete(l.full, last)
	}
}

func prefix(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}
