package client

import (
	"context"
	"net/http"

	"github.com/collie-otel/collie/internal/apiv1"
)

// StartRollout begins to bring a version to the agents.
func (c *Client) StartRollout(ctx context.Context, r apiv1.RolloutRequest) (apiv1.Rollout, error) {
	return c.rollout(ctx, request{method: http.MethodPost, path: []string{"rollouts"}, body: r})
}

// Rollouts returns the newest first, without their agents.
func (c *Client) Rollouts(ctx context.Context) (apiv1.Rollouts, error) {
	var answer apiv1.Rollouts
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"rollouts"}}, &answer)
	return answer, err
}

// Rollout returns one with its agents.
func (c *Client) Rollout(ctx context.Context, id string) (apiv1.Rollout, error) {
	return c.rollout(ctx, request{method: http.MethodGet, path: []string{"rollouts", id}})
}

// PauseRollout keeps a rollout from going on to more agents.
func (c *Client) PauseRollout(ctx context.Context, id string) (apiv1.Rollout, error) {
	return c.rollout(ctx, request{method: http.MethodPost, path: []string{"rollouts", id, "pause"}})
}

// ResumeRollout lets a paused rollout go on.
func (c *Client) ResumeRollout(ctx context.Context, id string) (apiv1.Rollout, error) {
	return c.rollout(ctx, request{method: http.MethodPost, path: []string{"rollouts", id, "resume"}})
}

// AbortRollout ends a rollout and takes back what it did.
func (c *Client) AbortRollout(ctx context.Context, id string) (apiv1.Rollout, error) {
	return c.rollout(ctx, request{method: http.MethodPost, path: []string{"rollouts", id, "abort"}})
}

func (c *Client) rollout(ctx context.Context, r request) (apiv1.Rollout, error) {
	var answer apiv1.Rollout
	_, err := c.send(ctx, r, &answer)
	return answer, err
}
