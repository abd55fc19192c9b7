package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/collie-otel/collie/internal/client"
)

const (
	// lookEvery is how often a command that follows something looks although nothing was announced.
	lookEvery = 3 * time.Second
	// lookGap is the least time between two looks. It is longer when a look takes long, so that much of the time goes to others.
	lookGap = 200 * time.Millisecond
)

// follow calls look at once, again after each announced change of one of these kinds, and every few seconds besides, until it
// says done or fails. A server that goes away after the first look is waited for. At the end of the context it returns its error.
func (c *session) follow(ctx context.Context, kinds []string, look func() (done bool, err error)) error {
	wake, stop := c.announced(ctx, kinds)
	defer stop()
	looked, lost := false, false
	for {
		begin := time.Now()
		done, err := look()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (!looked || !passing(err)):
			return err
		case err != nil && !lost:
			c.say("no answer from %s (%s): trying again", c.client.Server(), oneLine(err))
			lost = true
		case err == nil && done:
			return nil
		case err == nil:
			looked, lost = true, false
		}
		if err := pause(ctx, max(lookGap, 2*time.Since(begin)), nil); err != nil {
			return err
		}
		if err := pause(ctx, lookEvery, wake); err != nil {
			return err
		}
	}
}

// announced has something in its channel after changes of these kinds. A server that announces nothing is no error.
func (c *session) announced(ctx context.Context, kinds []string) (wake <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changes := make(chan struct{}, 1) // full: a look is due anyway
	var reader sync.WaitGroup
	reader.Go(func() {
		_ = c.client.Watch(ctx, func(change client.Change) {
			if change.Kind != "" && !slices.Contains(kinds, change.Kind) {
				return
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		})
	})
	return changes, func() {
		cancel()
		reader.Wait()
	}
}

// pause ends early when something wakes it.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-timer.C:
	}
	return nil
}

// passing says whether an error may be over the next time.
func passing(err error) bool {
	var answer *client.Error
	if errors.As(err, &answer) {
		return answer.Status >= http.StatusInternalServerError || answer.Status == http.StatusTooManyRequests
	}
	return errors.As(err, new(*url.Error))
}
