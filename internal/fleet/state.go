package fleet

import (
	"fmt"
	"slices"
)

// State is an agent's condition in one word.
type State string

// The states, the most urgent first.
const (
	// Disconnected: not connected; nothing else is known for certain.
	Disconnected State = "disconnected"
	// ConfigFailed: the desired set failed on the agent. It runs something else and will not be asked again.
	ConfigFailed State = "config_failed"
	// Unhealthy: it reports that it is not healthy.
	Unhealthy State = "unhealthy"
	// Pending: it has not finished with the desired set yet.
	Pending State = "pending"
	// Drifted: it was offered the desired set and reports another one since.
	Drifted State = "drifted"
	// Healthy: connected, runs what is desired, and reports nothing bad.
	Healthy State = "healthy"
)

var states = []State{Disconnected, ConfigFailed, Unhealthy, Pending, Drifted, Healthy}

// ParseState reads a state.
func ParseState(text string) (State, error) {
	if !slices.Contains(states, State(text)) {
		return "", fmt.Errorf("%q is no state of an agent: want one of %q", text, states)
	}
	return State(text), nil
}

// State derives the agent's state. The first line that holds decides:
//
//	not connected                                                        disconnected
//	the desired set is among the refused                                 config_failed
//	nothing is desired, and the last word is FAILED                      config_failed
//	health was reported, and is not healthy                              unhealthy
//	nothing is desired, or the agent takes no remote configuration       healthy
//	it runs the desired set (Runs)                                       healthy
//	it was offered the desired set and reports another as applied since  drifted
//	anything else: not offered, not answered, APPLYING, UNSET            pending
func (a *Agent) State() State {
	c := &a.RemoteConfig
	_, refused := c.Refusal(c.DesiredHash)
	switch {
	case !a.Connected:
		return Disconnected
	case refused, c.DesiredHash == "" && c.Status == Failed:
		return ConfigFailed
	case a.Unhealthy():
		return Unhealthy
	case c.DesiredHash == "", !a.Capabilities.Has(AcceptsRemoteConfig), a.Runs(c.DesiredHash):
		return Healthy
	case c.OfferedHash == c.DesiredHash && c.ReportedHash != c.DesiredHash && c.Status == Applied &&
		c.ReportedAt.After(c.OfferedAt):
		return Drifted
	}
	return Pending
}

// States lists them all, the most urgent first.
func States() []State { return slices.Clone(states) }
