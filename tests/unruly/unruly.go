// Package unruly is what test-only components do wrong, at a moment that their configuration names.
package unruly

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
)

// Config says what to do, and when.
type Config struct {
	// On is create, start, ready (After its start), span (the first one) or shutdown; empty is never.
	On string `mapstructure:"on"`
	// Do is error, panic, hang, recoverable, permanent, fatal, slow or flap (an error and none, a hundred times a second).
	Do string `mapstructure:"do"`
	// After is the delay of ready, and how long slow takes.
	After time.Duration `mapstructure:"after"`
}

// Component misbehaves as configured.
type Component struct {
	cfg   *Config
	host  component.Host
	timer *time.Timer
	once  sync.Once
	ended chan struct{}
	flaps sync.WaitGroup
}

// New is the moment "create".
func New(cfg *Config) (*Component, error) {
	c := &Component{cfg: cfg, ended: make(chan struct{})}
	return c, c.at("create")
}

// Start is the moment "start", and begins the delay of "ready".
func (c *Component) Start(host component.Host) error {
	c.host = host
	c.timer = time.AfterFunc(c.cfg.After, func() { _ = c.at("ready") })
	return c.at("start")
}

// Shutdown is the moment "shutdown".
func (c *Component) Shutdown() error {
	if c.timer == nil {
		return nil
	}
	c.timer.Stop()
	close(c.ended)
	c.flaps.Wait()
	return c.at("shutdown")
}

// Span is the moment "span", the first time.
func (c *Component) Span() {
	c.once.Do(func() { _ = c.at("span") })
}

var errUnruly = errors.New("unruly, as configured")

func (c *Component) at(moment string) error {
	if c.cfg.On != moment {
		return nil
	}
	switch c.cfg.Do {
	case "error":
		return errUnruly
	case "panic":
		panic(errUnruly)
	case "hang":
		select {}
	case "slow":
		time.Sleep(c.cfg.After)
	case "recoverable":
		componentstatus.ReportStatus(c.host, componentstatus.NewRecoverableErrorEvent(errUnruly))
	case "permanent":
		componentstatus.ReportStatus(c.host, componentstatus.NewPermanentErrorEvent(errUnruly))
	case "fatal":
		componentstatus.ReportStatus(c.host, componentstatus.NewFatalErrorEvent(errUnruly))
	case "flap":
		c.flaps.Go(c.flap)
	default:
		return fmt.Errorf("unruly: unknown action %q", c.cfg.Do)
	}
	return nil
}

func (c *Component) flap() {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		for _, event := range []*componentstatus.Event{
			componentstatus.NewRecoverableErrorEvent(errUnruly), componentstatus.NewEvent(componentstatus.StatusOK),
		} {
			select {
			case <-c.ended:
				return
			case <-ticker.C:
				componentstatus.ReportStatus(c.host, event)
			}
		}
	}
}
