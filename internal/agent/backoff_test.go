package agent

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBackoffLimitsConnections simulates connections in virtual time: whatever the server does, there are never more than
// five starts in any ten seconds.
func TestBackoffLimitsConnections(t *testing.T) {
	t.Parallel()
	const window, most = 10 * time.Second, 5
	fixed := func(d time.Duration) func(int) time.Duration { return func(int) time.Duration { return d } }
	none := fixed(0)
	random := func(limit time.Duration) func(int) time.Duration {
		return func(int) time.Duration { return rand.N(limit) }
	}
	for name, tt := range map[string]struct{ worked, retryAfter func(i int) time.Duration }{
		"lost at once":       {none, none},
		"lost after 0.1 s":   {fixed(100 * time.Millisecond), none},
		"lost after 9.9 s":   {fixed(9900 * time.Millisecond), none},
		"lost after 10 s":    {fixed(stableAfter), none},
		"lost after 0-9.9 s": {random(9900 * time.Millisecond), none},
		"lost after 0-12 s":  {random(12 * time.Second), none},
		"stable, then lost at once": {func(i int) time.Duration {
			if i%6 == 0 {
				return stableAfter
			}
			return 0
		}, none},
		"asks for 1 ns":  {none, fixed(1)},
		"asks for 0-1 s": {none, random(time.Second)},
		"asks for 1 ns, some stable": {func(i int) time.Duration {
			if i%7 == 0 {
				return stableAfter
			}
			return 0
		}, fixed(1)},
		"anything": {random(11 * time.Second), random(3 * time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 300 {
				var b backoff
				var now time.Duration
				var starts []time.Duration
				for i := range 100 {
					starts = append(starts, now)
					if i >= most {
						require.GreaterOrEqual(t, now-starts[i-most], window, "starts %v", starts[i-most:])
					}
					worked := tt.worked(i)
					now += worked + b.next(worked, tt.retryAfter(i))
				}
			}
		})
	}
}

func TestBackoffWait(t *testing.T) {
	t.Parallel()
	for range 1000 {
		var b backoff
		for i, base := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			wait := b.next(0, 0)
			require.GreaterOrEqual(t, wait, base*750*time.Millisecond, "failure %d", i)
			require.LessOrEqual(t, wait, base*1250*time.Millisecond, "failure %d", i)
		}
		require.GreaterOrEqual(t, b.next(stableAfter-1, 0), maxRetry*3/4, "not stable")
		require.LessOrEqual(t, b.next(stableAfter, 0), firstRetry*5/4, "reset by a stable connection")
		require.GreaterOrEqual(t, b.next(0, 0), firstRetry*3/2, "and counted again")
	}
}

func TestBackoffRetryAfter(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ asked, least, most time.Duration }{
		"1 ns":      {1, firstRetry * 3 / 4, firstRetry * 5 / 4},
		"2 s":       {2 * time.Second, 2 * time.Second, 3200 * time.Millisecond},
		"a minute":  {time.Minute, time.Minute, 67 * time.Second},
		"an hour":   {time.Hour, time.Hour, time.Hour*11/10 + time.Second},
		"a year":    {365 * 24 * time.Hour, maxRetryAfter, maxRetryAfter*11/10 + firstRetry},
		"the limit": {1<<63 - 1, maxRetryAfter, maxRetryAfter*11/10 + firstRetry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := map[time.Duration]bool{}
			for range 1000 {
				var b backoff
				wait := b.next(0, tt.asked)
				require.GreaterOrEqual(t, wait, tt.least)
				require.LessOrEqual(t, wait, tt.most)
				seen[wait] = true
			}
			require.Greater(t, len(seen), 100, "agents that were told the same do not come back at once")
		})
	}
}
