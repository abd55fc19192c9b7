// Package client speaks the control plane's HTTP API: one method for each route, with the types of package apiv1. It retries
// nothing but the stream of changes, and follows no redirect, so that a token goes where the user said and nowhere else. What
// is worth doing about an error, it leaves to its callers.
package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultServer is where a server listens unless told.
const DefaultServer = "http://127.0.0.1:4321"

const (
	// requestTimeout is how long a request may take, what it waits for on purpose aside.
	requestTimeout = 30 * time.Second
	// maxAnswer bounds an answer in bytes: a plan of a large fleet with its diffs fits.
	maxAnswer  = 64 << 20
	maxProblem = 64 << 10
)

// Options say how to reach a server.
type Options struct {
	// Server is its URL, http or https; empty is DefaultServer. A path is put before /api/v1.
	Server string
	// Token is sent with each request; empty is none.
	Token string
	// CAFile is a PEM file of the certificates to trust instead of the system's.
	CAFile string
	// PlaintextToken sends the token over plain http also to other hosts.
	PlaintextToken bool
}

// Client is safe for concurrent use. Close frees its connections.
type Client struct {
	base    string // without a slash at its end
	token   string
	http    *http.Client
	timeout time.Duration
}

// New checks the options, and connects to nothing.
func New(o Options) (*Client, error) {
	if o.Server == "" {
		o.Server = DefaultServer
	}
	base, err := parse(o.Server)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("the token has characters that no token has")
	}
	if o.Token != "" && base.Scheme == "http" && !isLoopback(base.Hostname()) && !o.PlaintextToken {
		return nil, fmt.Errorf("the token would cross the network to %s in plain text: use https", base.Host)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if o.CAFile != "" {
		if transport.TLSClientConfig, err = trust(o.CAFile); err != nil {
			return nil, err
		}
	}
	return &Client{
		base:    strings.TrimRight(base.String(), "/"),
		token:   o.Token,
		http:    &http.Client{Transport: transport, CheckRedirect: stay},
		timeout: requestTimeout,
	}, nil
}

// Server is the URL it speaks to.
func (c *Client) Server() string { return c.base }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// IsLoopback says whether a server's URL names this machine. The empty one is DefaultServer, which does.
func IsLoopback(server string) bool {
	if server == "" {
		return true
	}
	base, err := parse(server)
	return err == nil && isLoopback(base.Hostname())
}

func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func parse(server string) (*url.URL, error) {
	base, err := url.Parse(server)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Hostname() == "" {
		return nil, fmt.Errorf("%.200q is no URL of a server: want one like %s", server, DefaultServer)
	}
	if base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("%.200q: want no user, query or fragment in the URL of a server", base.Redacted())
	}
	return base, nil
}

func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// stay keeps the token from where it was not meant to go.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
