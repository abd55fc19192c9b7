package client

import (
	"context"
	"net/http"

	"github.com/collie-otel/collie/internal/apiv1"
)

// CreateToken makes a token. Its secret is in this answer and in no other.
func (c *Client) CreateToken(ctx context.Context, t apiv1.TokenRequest) (apiv1.Token, error) {
	var answer apiv1.Token
	_, err := c.send(ctx, request{method: http.MethodPost, path: []string{"tokens"}, body: t}, &answer)
	return answer, err
}

// Tokens returns all, the oldest first, without their secrets.
func (c *Client) Tokens(ctx context.Context) (apiv1.Tokens, error) {
	var answer apiv1.Tokens
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"tokens"}}, &answer)
	return answer, err
}

// RevokeToken makes a token invalid.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.remove(ctx, "tokens", id)
}

// Connections returns the offers of connection settings, their secrets redacted.
func (c *Client) Connections(ctx context.Context) (apiv1.Connections, error) {
	var answer apiv1.Connections
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"connections"}}, &answer)
	return answer, err
}

// Connection returns one offer of connection settings, its secrets redacted.
func (c *Client) Connection(ctx context.Context, name string) (apiv1.Connection, error) {
	var answer apiv1.Connection
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"connections", name}}, &answer)
	return answer, err
}

// SaveConnection makes or replaces the offer of this name.
func (c *Client) SaveConnection(ctx context.Context, offer apiv1.Connection) error {
	_, err := c.send(ctx, request{method: http.MethodPut, path: []string{"connections", offer.Name}, body: offer}, nil)
	return err
}

// DeleteConnection takes an offer of connection settings away.
func (c *Client) DeleteConnection(ctx context.Context, name string) error {
	return c.remove(ctx, "connections", name)
}

// Packages returns what can be offered, and the offers.
func (c *Client) Packages(ctx context.Context) (apiv1.Packages, error) {
	var answer apiv1.Packages
	_, err := c.send(ctx, request{method: http.MethodGet, path: []string{"packages"}}, &answer)
	return answer, err
}

// SavePackageOffer makes or replaces the offer of this name.
func (c *Client) SavePackageOffer(ctx context.Context, offer apiv1.PackageOffer) error {
	_, err := c.send(ctx, request{method: http.MethodPut, path: []string{"packages", "offers", offer.Name}, body: offer}, nil)
	return err
}

// DeletePackageOffer takes an offer of a package away.
func (c *Client) DeletePackageOffer(ctx context.Context, name string) error {
	return c.remove(ctx, "packages", "offers", name)
}

func (c *Client) remove(ctx context.Context, path ...string) error {
	_, err := c.send(ctx, request{method: http.MethodDelete, path: path}, nil)
	return err
}
