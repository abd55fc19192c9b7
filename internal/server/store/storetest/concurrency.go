package storetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/store"
)

// testAllOrNothing: what fails late takes back what was written before it.
func testAllOrNothing(t *testing.T, s store.Store) {
	saveVersion(t, s, "base", "one")
	require.NoError(t, s.CreateRollout(t.Context(), newRollout(t, s, "r1", "base", 1)))
	before := revision(t, s)
	event := fleet.Event{Kind: fleet.ConfigurationDeleted, Time: Start}
	require.ErrorIs(t, s.DeleteConfiguration(t.Context(), "base", event), store.ErrUnfinished)
	require.ErrorIs(t, s.CreateRollout(t.Context(), newRollout(t, s, "r2", "base", 1), event), store.ErrConflict)
	_, err := s.SaveVersion(t.Context(), fleet.Version{Configuration: "base"}, 7, event)
	require.ErrorIs(t, err, store.ErrConflict)
	require.ErrorIs(t, s.RevokeToken(t.Context(), "none", event), store.ErrNotFound)
	require.ErrorIs(t, s.ForgetAgent(t.Context(), UID(1), event), store.ErrNotFound)
	require.Equal(t, before, revision(t, s))
	require.Empty(t, events(t, s, store.EventQuery{}))
}

// testParallelWriters: nothing is lost, versions have no gaps, the revision never goes back, and of two who save the same rollout
// one wins.
func testParallelWriters(t *testing.T, s store.Store) {
	const writers, rounds = 8, 20
	saveVersion(t, s, "shared", "zero")
	ctx, stop := context.WithCancel(t.Context())
	var watching, writing sync.WaitGroup
	watching.Go(func() {
		last := int64(0)
		for ctx.Err() == nil {
			n, err := s.Revision(t.Context())
			if err != nil || n < last {
				t.Errorf("revision %d after %d: %v", n, last, err)
				return
			}
			last = n
			if _, err := s.ListAgents(t.Context(), store.AgentQuery{Text: "node"}); err != nil {
				t.Errorf("list: %v", err)
				return
			}
		}
	})
	errs := make(chan error, writers*rounds*4)
	for w := range writers {
		writing.Go(func() {
			for i := range rounds {
				a := NewAgent(w*rounds + i)
				errs <- s.SaveAgents(t.Context(), store.AgentBatch{Agents: []fleet.Agent{a}, Bodies: [][]byte{[]byte(a.UID)}, Events: []fleet.Event{{Agent: a.UID}}})
				_, err := s.SaveVersion(t.Context(), fleet.Version{Configuration: "shared", Body: []byte(a.UID)}, store.AnyVersion)
				errs <- err
				errs <- s.TouchAgents(t.Context(), map[string]time.Time{a.UID: Start.Add(time.Hour)})
			}
		})
	}
	writing.Wait()
	stop()
	watching.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	page, err := s.ListAgents(t.Context(), store.AgentQuery{})
	require.NoError(t, err)
	require.Equal(t, writers*rounds, page.Total)
	versions, err := s.ListVersions(t.Context(), "shared")
	require.NoError(t, err)
	require.Len(t, versions, writers*rounds+1)
	require.Equal(t, writers*rounds+1, versions[0].Number)
	require.Equal(t, int64(2*writers*rounds+1), revision(t, s), "one for each change")

	r := newRollout(t, s, "r1", "shared", 1)
	require.NoError(t, s.CreateRollout(t.Context(), r))
	results := make(chan error, writers)
	for range writers {
		go func() { results <- s.SaveRollout(t.Context(), r.Clone()) }()
	}
	won := 0
	for range writers {
		if err := <-results; err == nil {
			won++
		} else {
			require.ErrorIs(t, err, store.ErrConflict)
		}
	}
	require.Equal(t, 1, won)
}

// WriteForever writes agents, events and versions until it is killed, and says on out what is on disk: what the child process of
// Kill does.
func WriteForever(ctx context.Context, s store.Store, out io.Writer) error {
	for i := 0; ; i++ {
		a := NewAgent(i)
		e := fleet.Event{Kind: fleet.AgentConnected, Agent: a.UID, Time: Start}
		if err := s.SaveAgents(ctx, store.AgentBatch{Agents: []fleet.Agent{a}, Bodies: [][]byte{[]byte(a.UID)}, Events: []fleet.Event{e}}); err != nil {
			return err
		}
		if _, err := s.SaveVersion(ctx, fleet.Version{Configuration: "base", Body: []byte(a.UID), CreatedAt: Start}, i); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, i); err != nil {
			return err
		}
	}
}

// Kill starts the child, which opens a store and calls WriteForever on it, kills it with SIGKILL once it has said a few things,
// and checks that the store, opened again, has all that was said, and nothing by half.
func Kill(t *testing.T, child *exec.Cmd, after int, open func(t *testing.T) store.Store) {
	t.Helper()
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	said := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		_, err := fmt.Sscan(lines.Text(), &said)
		require.NoError(t, err)
		if said == after {
			require.NoError(t, child.Process.Kill())
		}
	}
	require.Error(t, child.Wait(), "killed")
	require.GreaterOrEqual(t, said, after)

	s := open(t)
	page, err := s.ListAgents(t.Context(), store.AgentQuery{Limit: 1000})
	require.NoError(t, err)
	require.GreaterOrEqual(t, page.Total, said+1, "what was acknowledged is there")
	for _, a := range page.Agents {
		require.Len(t, events(t, s, store.EventQuery{Agent: a.UID}), 1, "with its event")
		_, err := s.EffectiveConfig(t.Context(), fleet.ContentHash([]byte(a.UID)))
		require.NoError(t, err, "and its body")
	}
	c, err := s.Configuration(t.Context(), "base")
	require.NoError(t, err)
	require.GreaterOrEqual(t, c.Latest, said+1)
	require.LessOrEqual(t, c.Latest, page.Total, "in order")
	v, err := s.Version(t.Context(), "base", c.Latest)
	require.NoError(t, err)
	require.Equal(t, UID(c.Latest-1), string(v.Body))
	save(t, s, NewAgent(1<<20))
}
