package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/collie-otel/collie/internal/server/auth"
	"github.com/collie-otel/collie/internal/server/control"
	"github.com/collie-otel/collie/internal/server/opampserver"
	"github.com/collie-otel/collie/internal/server/store"
	"github.com/collie-otel/collie/internal/server/store/sqlite"
)

// Database is the name of the store's file in the data directory.
const Database = "collie.db"

// errInUse is an error of lock.
var errInUse = errors.New("in use by another collie server: stop it, or name another folder with --data-dir")

// Server is a control plane. New makes it and binds its ports, Start serves, Stop ends it.
type Server struct {
	config Config
	log    *slog.Logger

	store   store.Store
	auth    *auth.Keeper
	control *control.Control
	parts   parts

	opamp, api *listener
	endStreams func()         // of the API; they would not end by themselves
	close      []func() error // in reverse order
	stopping   atomic.Bool
	failed     chan error // of a listener that ended by itself
	stop       sync.Once
	stopped    error
}

// listener is a port with its server.
type listener struct {
	net.Listener
	http *http.Server
}

// New opens the store and binds the ports. Nothing is served yet. On an error everything is given back.
func New(ctx context.Context, config Config, log *slog.Logger) (_ *Server, err error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	s := &Server{config: config, log: log, failed: make(chan error, 2)}
	defer func() {
		if err != nil {
			if s.control != nil {
				err = errors.Join(err, s.control.Stop(context.WithoutCancel(ctx)))
			}
			err = errors.Join(err, s.release())
		}
	}()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.wire(ctx); err != nil {
		return nil, err
	}
	return s, s.bind()
}

// open takes the data directory.
func (s *Server) open(ctx context.Context) error {
	if err := os.MkdirAll(s.config.DataDir, 0o700); err != nil {
		return fmt.Errorf("the data directory: %w: name another one with --data-dir", err)
	}
	unlock, err := lock(filepath.Join(s.config.DataDir, "lock"))
	if err != nil {
		return fmt.Errorf("the data directory %s: %w", s.config.DataDir, err)
	}
	s.close = append(s.close, unlock)
	if err := s.checkDatabase(); err != nil {
		return err
	}
	db, err := sqlite.Open(ctx, filepath.Join(s.config.DataDir, Database))
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	s.store = db
	s.close = append(s.close, db.Close)
	return nil
}

// checkDatabase refuses a database that was emptied: it would be taken for a new one, and a fleet begun anew over its old secrets.
func (s *Server) checkDatabase() error {
	path := filepath.Join(s.config.DataDir, Database)
	info, err := os.Stat(path)
	if err != nil || info.Size() > 0 {
		return nil // what cannot be read fails in Open
	}
	if _, err := os.Stat(filepath.Join(s.config.DataDir, secretFile)); err != nil {
		return nil // the first start was interrupted
	}
	return fmt.Errorf("%s is empty, and was not: restore a backup, or delete it to begin anew", path)
}

// bind listens on both ports.
func (s *Server) bind() error {
	clientCA := (*x509.CertPool)(nil)
	if s.parts.authority != nil {
		clientCA = s.parts.authority.Pool()
	}
	var err error
	if s.opamp, err = s.listen(s.config.OpAMP.Endpoint, clientCA, s.opampHandler()); err != nil {
		return fmt.Errorf("opamp: %w", orTaken(err, "--opamp-listen"))
	}
	if s.api, err = s.listen(s.config.API, nil, s.apiHandler()); err != nil {
		return fmt.Errorf("api: %w", orTaken(err, "--listen"))
	}
	return nil
}

// orTaken adds what to do to the error of a port that is in use.
func orTaken(err error, flag string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: stop what listens there, or name another address with %s", err, flag)
	}
	return err
}

func (s *Server) listen(e Endpoint, clientCA *x509.CertPool, handler http.Handler) (*listener, error) {
	l, err := net.Listen("tcp", e.Listen)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, func() error { return ignoreClosed(l.Close()) })
	if e.TLS.CertFile != "" {
		// Read for each handshake, so that a renewed certificate is used.
		read := func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(e.TLS.CertFile, e.TLS.KeyFile)
			return &c, err
		}
		if _, err := read(nil); err != nil {
			return nil, err
		}
		config := &tls.Config{GetCertificate: read, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
		if clientCA != nil {
			config.ClientCAs, config.ClientAuth = clientCA, tls.VerifyClientCertIfGiven
		}
		l = tls.NewListener(l, config)
	}
	return &listener{l, &http.Server{
		// ReadTimeout is for bodies that no handler reads: net/http reads on, to keep the connection. Handlers have their own.
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}}, nil
}

// Start serves until Stop.
func (s *Server) Start() {
	s.control.Start()
	for name, l := range map[string]*listener{"opamp": s.opamp, "api": s.api} {
		go func() { // ends with Stop, which closes the listener
			if err := l.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				s.failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}
	s.log.Info("collie is ready", "opamp", s.OpAMPURL(), "api", s.APIURL(), "data_dir", s.config.DataDir, "tokens", s.auth != nil)
}

// Failed tells of a port that is served no more.
func (s *Server) Failed() <-chan error { return s.failed }

// OpAMPURL is where agents connect, APIURL where people do.
func (s *Server) OpAMPURL() string {
	return s.opamp.url("ws", s.config.OpAMP.TLS) + opampserver.Path
}

// APIURL is where people and the command line connect.
func (s *Server) APIURL() string { return s.api.url("http", s.config.API.TLS) }

func (l *listener) url(scheme string, t TLS) string {
	if t.CertFile != "" {
		scheme += "s"
	}
	return scheme + "://" + l.Addr().String()
}

// Stop ends everything in order: not ready any more, agents told to go, requests finished, the store closed. It may be called twice.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		s.stopping.Store(true)
		s.endStreams()
		s.stopped = errors.Join(s.control.Stop(ctx), shutdown(ctx, s.opamp), shutdown(ctx, s.api),
			s.control.Stop(ctx), // once more: what requests did that were under way
			s.release())
		s.log.Info("collie has stopped")
	})
	return s.stopped
}

// shutdown lets requests finish; when the time is over they are cut off.
func shutdown(ctx context.Context, l *listener) error {
	if err := l.http.Shutdown(ctx); err != nil {
		return errors.Join(err, l.http.Close())
	}
	return nil
}

// release gives back what New took, the last first.
func (s *Server) release() error {
	var errs []error
	for i := len(s.close) - 1; i >= 0; i-- {
		errs = append(errs, s.close[i]())
	}
	s.close = nil
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
