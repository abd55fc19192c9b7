package swarm

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
)

// Swarm is a number of agents. Its methods may be called from any goroutine, but not two of Connect and Reconnect at once.
type Swarm struct {
	config   Config
	target   target
	request  []byte
	agents   []*agent
	texts    *texts
	health   *protobufs.ComponentHealth
	counters Counters

	ctx  context.Context // ended by Close
	stop context.CancelFunc
	wg   sync.WaitGroup // the heartbeats, and all agents that are connected or on their way
}

// New makes agents that are not connected yet. Close ends them.
func New(config Config) (*Swarm, error) {
	to, err := config.target()
	if err != nil {
		return nil, err
	}
	config = config.withDefaults()
	s := &Swarm{
		config: config, target: to, request: upgradeRequest(to, config.Header),
		texts: newTexts(config.EffectiveConfig), health: healthTree(time.Now()), agents: make([]*agent, config.Agents),
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for i := range s.agents {
		s.agents[i] = &agent{swarm: s, index: i, uid: uuid.Must(uuid.NewV7()), status: &protobufs.RemoteConfigStatus{}, text: s.texts.of(i, "", nil)}
	}
	if config.Heartbeat > 0 {
		s.wg.Go(s.pace)
	}
	return s, nil
}

// Times say how long it took agents from their first attempt to connect to the server's first answer.
type Times struct {
	// Each is sorted.
	Each []time.Duration
	// All is from the first attempt of the first to the answer to the last.
	All time.Duration
	// Refused is how many attempts were answered with "later".
	Refused int64
}

// Connect connects all agents that are not connected, so many at a time, and at most Config.ConnectRate a second.
func (s *Swarm) Connect(ctx context.Context, concurrency int) (Times, error) {
	pause := time.Second / time.Duration(s.config.ConnectRate)
	return s.bring(ctx, len(s.agents), concurrency, pause)
}

// Reconnect connects n of the agents that are not connected, all at once.
func (s *Swarm) Reconnect(ctx context.Context, n int) (Times, error) { return s.bring(ctx, n, n, 0) }

// attempt is what became of bringing one agent.
type attempt struct {
	took time.Duration
	err  error
}

func (s *Swarm) bring(ctx context.Context, n, concurrency int, pause time.Duration) (Times, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	attempts := make(chan attempt, len(s.agents))
	slots := make(chan struct{}, concurrency)
	begin, refused, started := time.Now(), s.counters.Refused.Load(), 0
	for _, a := range s.agents {
		if started == n || ctx.Err() != nil {
			break
		}
		if a.connected() {
			continue
		}
		time.Sleep(time.Until(begin.Add(time.Duration(started) * pause)))
		slots <- struct{}{}
		started++
		s.wg.Go(func() {
			first := time.Now()
			w, err := a.join(ctx)
			attempts <- attempt{time.Since(first), err}
			<-slots
			if err == nil {
				a.live(w)
			}
		})
	}
	times, err := collect(attempts, started)
	times.All, times.Refused = time.Since(begin), s.counters.Refused.Load()-refused
	return times, errors.Join(err, ctx.Err())
}

func collect(attempts <-chan attempt, n int) (Times, error) {
	times := Times{Each: make([]time.Duration, 0, n)}
	var errs []error
	for range n {
		a := <-attempts
		times.Each = append(times.Each, a.took)
		errs = append(errs, a.err)
	}
	slices.Sort(times.Each)
	return times, errors.Join(errs...)
}

// Drop cuts n agents off as a crash of theirs would: with a reset and no goodbye. It returns how many were connected.
func (s *Swarm) Drop(n int) int { return s.part(n, (*agent).cut) }

// Leave has n agents say goodbye and close. It returns how many were connected.
func (s *Swarm) Leave(n int) int { return s.part(n, (*agent).leave) }

func (s *Swarm) part(n int, end func(*agent) bool) int {
	parted := 0
	for _, a := range s.agents {
		if parted < n && end(a) {
			parted++
		}
	}
	return parted
}

// Close has all agents say goodbye, and returns when nothing of the swarm is left.
func (s *Swarm) Close() {
	s.stop()
	s.Leave(len(s.agents))
	s.wg.Wait()
}

// Counters are counted on.
func (s *Swarm) Counters() *Counters { return &s.counters }

// Connected is how many agents are.
func (s *Swarm) Connected() int {
	n := 0
	for _, a := range s.agents {
		if a.connected() {
			n++
		}
	}
	return n
}

// UID is that of agent i.
func (s *Swarm) UID(i int) uuid.UUID {
	a := s.agents[i]
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.uid
}

// pace sends all heartbeats, each agent having its own moment in the interval.
func (s *Swarm) pace() {
	tick := time.NewTicker(max(time.Millisecond, s.config.Heartbeat/1000))
	defer tick.Stop()
	begin, sent := time.Now(), 0
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		due := int(float64(time.Since(begin)) / float64(s.config.Heartbeat) * float64(len(s.agents)))
		for sent = max(sent, due-len(s.agents)); sent < due; sent++ {
			s.agents[sent%len(s.agents)].beat()
		}
	}
}

// wait is how long an agent stays away after an attempt that failed.
func (s *Swarm) wait(err error, attempt int) time.Duration {
	var r *refusal
	if !errors.As(err, &r) {
		s.counters.ConnectErrors.Add(1)
		return min(5*time.Second, 50*time.Millisecond<<min(attempt, 10)) * time.Duration(50+rand.IntN(50)) / 100
	}
	s.counters.Refused.Add(1)
	after := cmp.Or(r.after, 30*time.Second)
	if s.config.MaxWait > 0 {
		after = min(after, s.config.MaxWait)
	}
	return after
}
