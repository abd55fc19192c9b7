package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/collie-otel/collie/internal/apiv1"
)

// pageSize is asked for where all pages are wanted.
const pageSize = 500

// AgentQuery describes agents; all conditions hold, and empty ones always do.
type AgentQuery struct {
	Selector, State, Text string
	// Limit is the size of a page, 0 for the server's own.
	Limit  int
	Cursor string
	// Hidden takes agents in that have been away for long.
	Hidden bool
}

func (q AgentQuery) values() url.Values {
	v := page(q.Limit, q.Cursor)
	set(v, "selector", q.Selector)
	set(v, "state", q.State)
	set(v, "q", q.Text)
	if q.Hidden {
		v.Set("hidden", "true")
	}
	return v
}

// page is the part of a query that says which page.
func page(limit int, cursor string) url.Values {
	v := url.Values{}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	set(v, "cursor", cursor)
	return v
}

func set(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}

// Agents returns a page of the inventory.
func (c *Client) Agents(ctx context.Context, q AgentQuery) (apiv1.Agents, error) {
	var answer apiv1.Agents
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"agents"}, query: q.values()}, &answer)
	return answer, err
}

// AllAgents goes through all pages and returns them as one.
func (c *Client) AllAgents(ctx context.Context, q AgentQuery) (apiv1.Agents, error) {
	q.Limit = pageSize
	all := apiv1.Agents{Agents: []apiv1.Agent{}}
	for {
		answer, err := c.Agents(ctx, q)
		if err != nil {
			return all, err
		}
		all.Agents, all.Total = append(all.Agents, answer.Agents...), answer.Total
		// A page without agents ends it too: nothing obliges a server to come to an end.
		if answer.NextCursor == "" || answer.NextCursor == q.Cursor || len(answer.Agents) == 0 {
			return all, nil
		}
		q.Cursor = answer.NextCursor
	}
}

// Agent returns one agent.
func (c *Client) Agent(ctx context.Context, uid string) (apiv1.Agent, error) {
	var answer apiv1.Agent
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"agents", uid}}, &answer)
	return answer, err
}

// EffectiveConfig returns what an agent runs, as YAML.
func (c *Client) EffectiveConfig(ctx context.Context, uid string) (string, error) {
	var answer string
	r := request{method: http.MethodGet, path: []string{"agents", uid, "effective-config"}, accept: "text/yaml, application/problem+json"}
	_, err := c.send(ctx, r, &answer)
	return answer, err
}

// DesiredConfig returns what an agent should run.
func (c *Client) DesiredConfig(ctx context.Context, uid string) (apiv1.DesiredConfig, error) {
	var answer apiv1.DesiredConfig
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"agents", uid, "desired-config"}}, &answer)
	return answer, err
}

// Components returns what an agent's binary contains.
func (c *Client) Components(ctx context.Context, uid string) (apiv1.Components, error) {
	var answer apiv1.Components
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"agents", uid, "components"}}, &answer)
	return answer, err
}

// Throughput returns an agent's own telemetry of the last hour.
func (c *Client) Throughput(ctx context.Context, uid string) (apiv1.Series, error) {
	var answer apiv1.Series
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"agents", uid, "throughput"}}, &answer)
	return answer, err
}

// Forget deletes an agent that is away.
func (c *Client) Forget(ctx context.Context, uid string) error {
	_, err := c.send(ctx, request{method: http.MethodDelete, path: []string{"agents", uid}}, nil)
	return err
}

// Restart asks an agent to restart.
func (c *Client) Restart(ctx context.Context, uid string) error {
	_, err := c.send(ctx, request{method: http.MethodPost, path: []string{"agents", uid, "restart"}}, nil)
	return err
}

// RotateCredential gives an agent a new credential.
func (c *Client) RotateCredential(ctx context.Context, uid string) error {
	_, err := c.send(ctx, request{method: http.MethodPost, path: []string{"agents", uid, "rotate-credential"}}, nil)
	return err
}
