package server

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/datadir"
	"github.com/collie-otel/collie/internal/fleet"
	"github.com/collie-otel/collie/internal/server/api"
	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/authority"
	"github.com/collie-otel/collie/internal/server/control"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/packagedir"
	"github.com/collie-otel/collie/internal/server/telemetry"
	"github.com/collie-otel/collie/internal/statefile"
)

// parts are what a server may have beside the fleet.
type parts struct {
	authority *authority.Authority // nil without certificates
	packages  *packagedir.Dir      // nil without a folder
	recorder  *telemetry.Recorder
	secret    []byte // signs the credentials of agents for their own metrics and for packages
}

// secretFile is the name of the file in the data directory that holds parts.secret.
const secretFile = "secret"

// wire makes the parts and the fleet.
func (s *Server) wire(ctx context.Context) error {
	if err := s.openParts(); err != nil {
		return err
	}
	options := control.Options{
		Store: s.store, Log: s.log, Recorder: s.parts.recorder, Credentials: s.config.Credentials, PublicURL: s.config.OpAMP.PublicURL,
		Keep:  control.Keep{Agents: s.config.Retention.Agents, Events: s.config.Retention.Events},
		OpAMP: opampserver.Options{Drain: s.config.OpAMP.DrainFor},
	}
	if path := s.config.OpAMP.TLS.CAFile; path != "" {
		ca, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("opamp::tls::ca_file: %w", err)
		}
		options.CA = string(ca)
	}
	if s.parts.authority != nil {
		options.Authority = certifier{s.parts.authority}
	}
	if s.parts.packages != nil {
		options.Packages = executables{s.parts.packages}
	}
	if !s.config.Dev {
		if err := s.openTokens(ctx); err != nil {
			return err
		}
		options.Auth, options.MetricsToken = s.auth, s.agentToken
	}
	var err error
	s.control, err = control.New(ctx, options)
	return err
}

func (s *Server) openParts() (err error) {
	dir := s.config.DataDir
	s.parts.recorder = telemetry.New(telemetry.Options{})
	if s.config.Certificates {
		if s.parts.authority, err = authority.Open(filepath.Join(dir, "authority"), time.Now); err != nil {
			return err
		}
	}
	if s.config.Packages.Directory != "" {
		if s.parts.packages, err = packagedir.Open(s.config.Packages.Directory, s.config.Packages.PublicKeys); err != nil {
			return err
		}
		s.close = append(s.close, s.parts.packages.Close)
		for _, problem := range s.parts.packages.Problems() {
			s.log.Warn("an executable is not offered", "error", problem)
		}
	}
	path := filepath.Join(dir, secretFile)
	if s.parts.secret, err = os.ReadFile(path); errors.Is(err, os.ErrNotExist) {
		s.parts.secret = []byte(rand.Text())
		err = statefile.Replace(path, s.parts.secret)
	}
	if err == nil && len(s.parts.secret) < 16 {
		err = fmt.Errorf("%s is too short: delete it, and a new one is made", path)
	}
	return err
}

// openTokens loads the tokens, and makes the first one.
func (s *Server) openTokens(ctx context.Context) (err error) {
	if s.auth, err = auth.New(ctx, s.store, nil); err != nil {
		return err
	}
	path := filepath.Join(s.config.DataDir, datadir.AdminToken)
	created, err := s.auth.EnsureAdmin(ctx, path)
	if created {
		s.log.Warn("an admin token was made; the collie command finds it there", "file", path)
	}
	return err
}

// certifier is the authority as control needs it.
type certifier struct{ *authority.Authority }

func (certifier) UIDOf(c *x509.Certificate) (string, bool) { return authority.UIDOf(c) }

// executables is the folder of packages as control needs it.
type executables struct{ *packagedir.Dir }

func (executables) PlatformOf(attributes map[string]string) (os, arch string, ok bool) {
	return packagedir.PlatformOf(attributes)
}

// opampHandler is the agents' port: OpAMP, their own metrics, and packages.
func (s *Server) opampHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(opampserver.Path, s.control.Handler())
	mux.HandleFunc("/v1/metrics", s.receiveMetrics)
	if s.parts.packages != nil {
		mux.HandleFunc("/packages/", func(w http.ResponseWriter, r *http.Request) {
			if _, ok := s.knownAgentOf(r); !ok {
				http.Error(w, "packages are for agents that were offered them", http.StatusUnauthorized)
				return
			}
			s.parts.packages.ServeHTTP(w, r)
		})
	}
	if s.config.Dev {
		return notFromPages(mux)
	}
	return mux
}

// notFromPages refuses what web pages send, whose name may have been made to resolve to this machine: without tokens each could be an
// agent, and read what agents are sent. Agents have no origin, or one of this machine.
func notFromPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin, err := url.Parse(r.Header.Get("Origin")); err != nil || origin.Host != "" && !api.IsLoopback(origin.Host) ||
			origin.Host == "" && r.Header.Get("Origin") != "" {
			http.Error(w, "the request comes from a page of another site", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) receiveMetrics(w http.ResponseWriter, r *http.Request) {
	uid, ok := s.knownAgentOf(r)
	if !ok {
		http.Error(w, "own metrics are taken from agents that were offered this destination", http.StatusUnauthorized)
		return
	}
	s.parts.recorder.Receive(w, r, uid, s.control.UIDOf)
}

// The credential of an agent for all but OpAMP is made from its UID: nothing has to be stored, and an offer is always the same.
const agentTokenPrefix = "collie_own_"

func (s *Server) agentToken(uid string) string {
	return agentTokenPrefix + uid + "_" + base64.RawURLEncoding.EncodeToString(s.signature(uid))
}

func (s *Server) signature(uid string) []byte {
	mac := hmac.New(sha256.New, s.parts.secret)
	mac.Write([]byte(agentTokenPrefix + uid))
	return mac.Sum(nil)
}

// knownAgentOf is agentOf for agents of the inventory: the credential of one that was forgotten ends with it.
func (s *Server) knownAgentOf(r *http.Request) (uid string, ok bool) {
	if uid, ok = s.agentOf(r); uid == "" {
		return uid, ok
	}
	known, found := s.control.UIDOf(uid)
	return uid, ok && found && known == uid
}

// agentOf is the agent that such a credential is for; without tokens it is nobody in particular.
func (s *Server) agentOf(r *http.Request) (uid string, ok bool) {
	if s.auth == nil {
		return "", true
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	uid, signature, _ := strings.Cut(strings.TrimPrefix(token, agentTokenPrefix), "_")
	given, err := base64.RawURLEncoding.DecodeString(signature)
	ok = err == nil && fleet.ValidateUID(uid) == nil && subtle.ConstantTimeCompare(given, s.signature(uid)) == 1
	return uid, ok
}
