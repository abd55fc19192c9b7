package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
)

// Configurations returns all, without their bodies.
func (c *Client) Configurations(ctx context.Context) (apiv1.Configurations, error) {
	var answer apiv1.Configurations
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"configurations"}}, &answer)
	return answer, err
}

// Configuration returns one with its newest version, and its ETag for SaveConfiguration.
func (c *Client) Configuration(ctx context.Context, name string) (apiv1.Configuration, string, error) {
	var answer apiv1.Configuration
	tag, err := c.send(ctx, request{method: http.MethodGet, path: []string{"configurations", name}}, &answer)
	return answer, tag, err
}

// Absent is the tag of what is not there.
const Absent = "absent"

// SaveConfiguration saves a version and touches no agent. With a tag it fails if another version was saved since, and with Absent if
// there is a version at all.
func (c *Client) SaveConfiguration(ctx context.Context, name string, v apiv1.SaveConfiguration, tag string) (apiv1.Configuration, error) {
	var answer apiv1.Configuration
	r := request{method: http.MethodPut, path: []string{"configurations", name}, body: v, tag: tag}
	_, err := c.send(ctx, r, &answer)
	return answer, err
}

// DeleteConfiguration deletes it and takes it from the agents that have it.
func (c *Client) DeleteConfiguration(ctx context.Context, name string) error {
	_, err := c.send(ctx, request{method: http.MethodDelete, path: []string{"configurations", name}}, nil)
	return err
}

// Versions returns the versions of a configuration, the newest first, without their bodies.
func (c *Client) Versions(ctx context.Context, name string) (apiv1.Versions, error) {
	var answer apiv1.Versions
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"configurations", name, "versions"}}, &answer)
	return answer, err
}

// Version returns one version of a configuration.
func (c *Client) Version(ctx context.Context, name string, version int) (apiv1.Version, error) {
	var answer apiv1.Version
	r := request{method: http.MethodGet, path: []string{"configurations", name, "versions", strconv.Itoa(version)}}
	_, err := c.send(ctx, r, &answer)
	return answer, err
}

// Diff returns how one version of a configuration becomes another, as a unified diff.
func (c *Client) Diff(ctx context.Context, name string, from, to int) (string, error) {
	var answer string
	_, err := c.send(ctx, request{
		method: http.MethodGet, path: []string{"configurations", name, "diff"}, accept: "text/plain, application/problem+json",
		query: url.Values{"from": {strconv.Itoa(from)}, "to": {strconv.Itoa(to)}},
	}, &answer)
	return answer, err
}

// Plan asks the agents that a candidate concerns, and waits for their answers at most this long. The plan says whether it is done.
func (c *Client) Plan(ctx context.Context, p apiv1.PlanRequest, wait time.Duration) (apiv1.Plan, error) {
	var answer apiv1.Plan
	r := request{method: http.MethodPost, path: []string{"plans"}, body: p, wait: wait}
	if wait > 0 {
		r.query = url.Values{"wait": {wait.String()}}
	}
	_, err := c.send(ctx, r, &answer)
	return answer, err
}

// GetPlan returns how far a plan is.
func (c *Client) GetPlan(ctx context.Context, id string) (apiv1.Plan, error) {
	var answer apiv1.Plan
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"plans", id}}, &answer)
	return answer, err
}
