package client

import (
	"context"
	"net/http"

	"github.com/collie-otel/collie/internal/apiv1"
)

// AgentEvents returns a page of an agent's timeline, the newest first.
func (c *Client) AgentEvents(ctx context.Context, uid string, limit int, cursor string) (apiv1.Events, error) {
	return c.events(ctx, limit, cursor, "agents", uid, "events")
}

// RolloutEvents returns a page of a rollout's timeline, the newest first.
func (c *Client) RolloutEvents(ctx context.Context, id string, limit int, cursor string) (apiv1.Events, error) {
	return c.events(ctx, limit, cursor, "rollouts", id, "events")
}

// Audit returns a page of everything that happened, the newest first.
func (c *Client) Audit(ctx context.Context, limit int, cursor string) (apiv1.Events, error) {
	return c.events(ctx, limit, cursor, "audit")
}

func (c *Client) events(ctx context.Context, limit int, cursor string, path ...string) (apiv1.Events, error) {
	var answer apiv1.Events
	_, err := c.send(ctx, request{method: http.MethodGet, path: path, query: page(limit, cursor)}, &answer)
	return answer, err
}
