package swarm

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/collie-otel/collie/internal/plan"
)

// Config says what the agents are like. The zero value of a field means its default.
type Config struct {
	// URL of the server: ws://127.0.0.1:4320/v1/opamp. Required.
	URL string
	// Agents is how many there are. Required.
	Agents int
	// Header goes with every upgrade.
	Header http.Header
	// Attributes describe agent i; service.instance.id is added. Default: a Collector on a host of its own, one in ten in stage.
	Attributes func(i int) (identifying, nonIdentifying map[string]string)
	// StatusBytes is the size of description and health together. Default: 2 KiB.
	StatusBytes int
	// EffectiveConfig is the size of an effective configuration. Default: 10 KiB; there are four of them in the fleet.
	EffectiveConfig int
	// Heartbeat is the time between two heartbeats of an agent. Default: 30 s; negative: none.
	Heartbeat time.Duration
	// LocalAddr is where agent i connects from. Default: a loopback address for every 256 agents, so that ports do not run out.
	LocalAddr func(i int) net.IP
	// ConnectRate is how many agents a second Connect brings. Default: 1,000, which is as many as the server takes for long.
	ConnectRate int
	// MaxWait bounds how long a refused agent waits, whatever the server asks for. Default: as long as the server asks for.
	MaxWait time.Duration
	// Apply judges a configuration, on the agent's own goroutine: an error makes it FAILED. Default: all are applied.
	Apply func(i int, files map[string][]byte) error
	// PlanAnswer answers a plan. Default: accepted, with the diff that it makes.
	PlanAnswer func(i int, r plan.Request) plan.Answer
}

func (c Config) withDefaults() Config {
	if c.Attributes == nil {
		c.Attributes = attributes
	}
	if c.StatusBytes == 0 {
		c.StatusBytes = 2 << 10
	}
	if c.EffectiveConfig == 0 {
		c.EffectiveConfig = 10 << 10
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 30 * time.Second
	}
	if c.LocalAddr == nil {
		c.LocalAddr = func(i int) net.IP { return net.IPv4(127, byte(1+i>>16), byte(i>>8), 1) }
	}
	if c.ConnectRate == 0 {
		c.ConnectRate = 1000
	}
	if c.Apply == nil {
		c.Apply = func(int, map[string][]byte) error { return nil }
	}
	return c
}

// target is where the agents connect to.
type target struct{ address, path string }

func (c Config) target() (target, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return target{}, err
	}
	if u.Scheme != "ws" || u.Port() == "" {
		return target{}, fmt.Errorf("the URL %q is not of the form ws://host:port/path", c.URL)
	}
	if c.Agents < 1 {
		return target{}, errors.New("no agents")
	}
	return target{u.Host, u.RequestURI()}, nil
}

// attributes are those of a fleet of Collectors.
func attributes(i int) (identifying, nonIdentifying map[string]string) {
	environment := "prod"
	if i%10 == 9 {
		environment = "stage"
	}
	return map[string]string{"service.name": "otelcol-collie", "service.version": "0.159.0"},
		map[string]string{
			"os.type": "linux", "host.arch": "amd64", "host.name": fmt.Sprintf("host-%05d", i), "host.id": fmt.Sprintf("%032x", i),
			"deployment.environment": environment, "cloud.region": fmt.Sprintf("region-%d", i%4),
			"os.description": strings.Repeat("GNU/Linux ", 3) + "6.1.0 SMP x86_64",
		}
}
