package harness

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/datadir"
)

// apiLimit is how long a request to the API may take.
const apiLimit = 60 * time.Second

// ServerOptions says which control plane to run.
type ServerOptions struct {
	// Args are further arguments behind `collie server`, its data directory and its addresses.
	Args []string
	// Secure is a server with TLS and tokens instead of --dev; the API is used with the admin token that it makes.
	Secure bool
	// Config is laid under the flags: YAML.
	Config string
	// Dir is the data directory; default a new one.
	Dir string
	// Prefix is put before the command line.
	Prefix []string
}

// Server is one control plane: its addresses and its data stay the same through restarts.
type Server struct {
	*Process   // the current run, ended or not
	t          testing.TB
	opts       ServerOptions
	dir        string
	opamp, api string
	// CAFile is that of a secure server.
	CAFile string
	flags  []string
	client *http.Client
}

// StartServer runs `collie server` and waits until it is ready. The test's end stops it.
func StartServer(t testing.TB, opts ServerOptions) *Server {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", FreePort(t, "127.0.0.1")) }
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	t.Cleanup(transport.CloseIdleConnections)
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	s := &Server{t: t, opts: opts, dir: opts.Dir, opamp: address(), api: address(), client: &http.Client{Timeout: apiLimit, Transport: transport}}
	s.configure()
	s.Start()
	return s
}

// configure writes the configuration file.
func (s *Server) configure() {
	s.t.Helper()
	config := s.opts.Config
	if s.opts.Secure {
		cert, key := SelfSigned(s.t)
		s.CAFile = cert
		pair := fmt.Sprintf("tls: {cert_file: %s, key_file: %s, ca_file: %s}", cert, key, cert)
		config += "\nopamp: {" + pair + "}\napi: {" + pair + "}\n"
		pem, err := os.ReadFile(cert)
		if err != nil {
			s.t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		s.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	} else {
		s.flags = append(s.flags, "--dev")
	}
	if config != "" {
		path := filepath.Join(s.t.TempDir(), "server.yaml")
		if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
			s.t.Fatal(err)
		}
		s.flags = append(s.flags, "--config", path)
	}
}

// Start begins a run and waits until the server is ready.
func (s *Server) Start() {
	s.t.Helper()
	argv := append(s.opts.Prefix, Binary(s.t, "collie"), "server", "--data-dir", s.dir, "--opamp-listen", s.opamp, "--listen", s.api)
	s.Process = start(s.t, "server", s.t.TempDir(), []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir}, slices.Concat(argv, s.flags, s.opts.Args))
	Await(s.t, readyLimit, "server ready", func() (bool, any) {
		s.MustRun()
		resp, err := s.client.Get(s.URL() + "/readyz")
		if err != nil {
			return false, err
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK, resp.Status
	})
}

// WebSocket and HTTP are the URLs for agents, URL is that of the API's host.
func (s *Server) WebSocket() string { return s.scheme("ws") + s.opamp + "/v1/opamp" }
func (s *Server) HTTP() string      { return s.scheme("http") + s.opamp + "/v1/opamp" }
func (s *Server) URL() string       { return s.scheme("http") + s.api }

func (s *Server) scheme(name string) string {
	if s.opts.Secure {
		name += "s"
	}
	return name + "://"
}

// AdminToken is what a secure server has made at its first start; empty for another one.
func (s *Server) AdminToken() string {
	if !s.opts.Secure {
		return ""
	}
	token, err := os.ReadFile(filepath.Join(s.dir, datadir.AdminToken))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(token))
}

// Dir is the data directory.
func (s *Server) Dir() string { return s.dir }

// Do sends a request to the API, path being what follows /api/v1, and reads the answer into into. Both bodies may be nil.
func (s *Server) Do(method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL()+"/api/v1"+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token := s.AdminToken(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	switch text, plain := into.(*string); {
	case err != nil:
		return err
	case resp.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
	case plain:
		*text = string(data)
	case into != nil:
		return json.Unmarshal(data, into)
	}
	return nil
}

// Must is Do that fails the test.
func (s *Server) Must(method, path string, body, into any) {
	s.t.Helper()
	if err := s.Do(method, path, body, into); err != nil {
		s.t.Fatal(err)
	}
}

// Agents is one page of agents; the query is that of GET /agents, as "selector", "a=b", "limit", "10".
func (s *Server) Agents(query ...string) apiv1.Agents {
	s.t.Helper()
	values := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	var page apiv1.Agents
	s.Must(http.MethodGet, "/agents?"+values.Encode(), nil, &page)
	return page
}

// AwaitAgent waits until an agent is listed and as it should be.
func (s *Server) AwaitAgent(uid string, limit time.Duration, what string, good func(apiv1.Agent) bool) apiv1.Agent {
	s.t.Helper()
	var agent apiv1.Agent
	Await(s.t, limit, what, func() (bool, any) {
		s.MustRun()
		agent = apiv1.Agent{}
		if err := s.Do(http.MethodGet, "/agents/"+uid, nil, &agent); err != nil {
			return false, err
		}
		return good(agent), agent
	})
	return agent
}

// RollOut saves a configuration and begins to bring it to all agents of the selector at once.
func (s *Server) RollOut(name, selector, body string) apiv1.Rollout {
	s.t.Helper()
	s.Must(http.MethodPut, "/configurations/"+url.PathEscape(name), apiv1.SaveConfiguration{Selector: selector, Body: body}, nil)
	soak := "0s"
	var rollout apiv1.Rollout
	s.Must(http.MethodPost, "/rollouts", apiv1.RolloutRequest{Configuration: name, Waves: []string{"100%"}, Soak: &soak}, &rollout)
	return rollout
}

// AwaitRollout waits until a rollout has ended, and requires that it did in the given state.
func (s *Server) AwaitRollout(id, state string, limit time.Duration) apiv1.Rollout {
	s.t.Helper()
	var rollout apiv1.Rollout
	Await(s.t, limit, "rollout "+state, func() (bool, any) {
		s.MustRun()
		rollout = apiv1.Rollout{}
		s.Must(http.MethodGet, "/rollouts/"+id, nil, &rollout)
		ended := !strings.Contains("pending running paused", rollout.State)
		if ended && rollout.State != state {
			s.t.Fatalf("the rollout is %s: %s", rollout.State, rollout.Message)
		}
		shown := rollout
		shown.Agents = shown.Agents[:min(3, len(shown.Agents))]
		return ended, shown
	})
	return rollout
}
