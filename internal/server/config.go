package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/datadir"
)

// Config is the configuration of a server. DefaultConfig has the defaults; a file (ReadConfig) and flags are laid over them.
type Config struct {
	// DataDir holds everything that lasts.
	DataDir string `yaml:"data_dir"`
	// Dev is a server without tokens, on loopback.
	Dev bool `yaml:"dev"`
	// Insecure allows to listen beyond loopback without TLS or tokens.
	Insecure bool `yaml:"insecure"`

	// OpAMP is the agents' port, API the people's.
	OpAMP OpAMP    `yaml:"opamp"`
	API   Endpoint `yaml:"api"`

	// Credentials gives every agent that comes with an enrolment token a credential of its own.
	Credentials bool `yaml:"credentials"`
	// Certificates signs client certificates for agents that ask, with an authority in DataDir, and accepts them.
	Certificates bool `yaml:"certificates"`
	// Packages are executables that may be offered.
	Packages PackagesDir `yaml:"packages"`
	// Retention is how long things are kept.
	Retention Retention `yaml:"retention"`
}

// Endpoint is a port.
type Endpoint struct {
	// Listen is host:port.
	Listen string `yaml:"listen"`
	// TLS is empty for plaintext.
	TLS TLS `yaml:"tls"`
}

// OpAMP is the agents' port.
type OpAMP struct {
	Endpoint `yaml:",inline"`
	// PublicURL is the base URL at which agents reach it through proxies, as wss://collie.example.com:4320.
	PublicURL string `yaml:"public_url"`
	// DrainFor is the window over which the agents' connections are closed at the end.
	DrainFor time.Duration `yaml:"drain_for"`
}

// TLS names PEM files.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	// CAFile is the authority behind the agents' port, where the agents' systems do not know it: it goes along with offers that lead
	// here. For the OpAMP connection itself they need it in their own configuration.
	CAFile string `yaml:"ca_file"`
}

// PackagesDir is a folder of signed executables.
type PackagesDir struct {
	Directory string `yaml:"directory"`
	// PublicKeys are minisign keys. What none of them has signed is not offered.
	PublicKeys []string `yaml:"public_keys"`
}

// Retention is how long things are kept; 0 is for ever.
type Retention struct {
	// HideAgents: agents that are away for longer are left out of lists unless asked for.
	HideAgents time.Duration `yaml:"hide_agents"`
	// Agents that are away for longer are deleted, and events that are older.
	Agents time.Duration `yaml:"agents"`
	Events time.Duration `yaml:"events"`
}

// DefaultConfig has the defaults.
func DefaultConfig() Config {
	return Config{
		DataDir:     datadir.Default(),
		OpAMP:       OpAMP{Endpoint: Endpoint{Listen: "127.0.0.1:4320"}, DrainFor: 5 * time.Second},
		API:         Endpoint{Listen: "127.0.0.1:4321"},
		Credentials: true,
		Retention:   Retention{HideAgents: 24 * time.Hour, Agents: 30 * 24 * time.Hour, Events: 30 * 24 * time.Hour},
	}
}

// ReadConfig lays a YAML file over c. Keys that do not exist are errors.
func (c *Config) ReadConfig(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Validate returns all errors at once.
func (c *Config) Validate() error {
	errs := []error{c.exposure("opamp", &c.OpAMP.Endpoint), c.exposure("api", &c.API)}
	if c.DataDir == "" {
		errs = append(errs, errors.New("data_dir is empty"))
	}
	for name, tls := range map[string]TLS{"opamp": c.OpAMP.TLS, "api": c.API.TLS} {
		if (tls.CertFile == "") != (tls.KeyFile == "") {
			errs = append(errs, fmt.Errorf("%s::tls: give both cert_file and key_file", name))
		}
	}
	if c.OpAMP.PublicURL != "" {
		u, err := url.Parse(c.OpAMP.PublicURL)
		if err != nil || u.Host == "" || u.Path != "" || u.Scheme != "ws" && u.Scheme != "wss" {
			errs = append(errs, fmt.Errorf("opamp::public_url: %q: want ws:// or wss:// with host and port, and no path", c.OpAMP.PublicURL))
		}
	}
	if c.Certificates && c.OpAMP.TLS.CertFile == "" {
		errs = append(errs, errors.New("certificates: agents present them over TLS only: set opamp::tls"))
	}
	if c.Packages.Directory != "" && len(c.Packages.PublicKeys) == 0 {
		errs = append(errs, errors.New("packages::public_keys: nothing unsigned is offered: give the key of the directory's signatures"))
	}
	if c.Retention.HideAgents < 0 || c.Retention.Agents < 0 || c.Retention.Events < 0 || c.OpAMP.DrainFor < 0 {
		errs = append(errs, errors.New("retention, opamp::drain_for: want none below zero"))
	}
	return errors.Join(errs...)
}

// exposure refuses what would leave a port open to everybody.
func (c *Config) exposure(name string, e *Endpoint) error {
	host, _, err := net.SplitHostPort(e.Listen)
	if err != nil {
		return fmt.Errorf("%s::listen: %q: want host:port", name, e.Listen)
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	if loopback || c.Insecure {
		return nil
	}
	switch {
	case c.Dev:
		return fmt.Errorf("%s::listen: %s is not loopback, and --dev has no tokens: leave --dev out", name, e.Listen)
	case e.TLS.CertFile == "":
		return fmt.Errorf("%s::listen: %s is not loopback and there is no TLS: set %s::tls, or say --insecure if something in front of it has TLS",
			name, e.Listen, name)
	}
	return nil
}
