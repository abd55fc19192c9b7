package control

import (
	"encoding/json"
	"time"

	"github.com/collie-otel/collie/internal/fleet"
)

// tree is the health of an agent's components while nobody looks at it: a fifth of what the maps take. It is a JSON map of leaves, nil
// for none.
type tree []byte

// leaf is fleet.Health, short. Times are in nanoseconds since 1970, 0 for none.
type leaf struct {
	Healthy    bool            `json:"h,omitempty"`
	Status     string          `json:"s,omitempty"`
	LastError  string          `json:"e,omitempty"`
	StartTime  int64           `json:"b,omitempty"`
	StatusTime int64           `json:"t,omitempty"`
	Components map[string]leaf `json:"c,omitempty"`
}

func fold(components map[string]fleet.Health) tree {
	if len(components) == 0 {
		return nil
	}
	encoded, _ := json.Marshal(leaves(components)) // texts and numbers
	return encoded
}

func leaves(components map[string]fleet.Health) map[string]leaf {
	out := make(map[string]leaf, len(components))
	for name, h := range components {
		l := leaf{Healthy: h.Healthy, Status: h.Status, LastError: h.LastError, StartTime: nano(h.StartTime), StatusTime: nano(h.StatusTime)}
		if len(h.Components) > 0 {
			l.Components = leaves(h.Components)
		}
		out[name] = l
	}
	return out
}

func (t tree) unfold() map[string]fleet.Health {
	if t == nil {
		return nil
	}
	var out map[string]leaf
	_ = json.Unmarshal(t, &out) // made by fold
	return healths(out)
}

func healths(leaves map[string]leaf) map[string]fleet.Health {
	out := make(map[string]fleet.Health, len(leaves))
	for name, l := range leaves {
		h := fleet.Health{Healthy: l.Healthy, Status: l.Status, LastError: l.LastError, StartTime: unixNano(uint64(l.StartTime)), StatusTime: unixNano(uint64(l.StatusTime))}
		if len(l.Components) > 0 {
			h.Components = healths(l.Components)
		}
		out[name] = h
	}
	return out
}

func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// setHealth keeps the whole agent's health as it is, and that of its components folded.
func (e *entry) setHealth(h *fleet.Health, components tree) {
	e.agent.Health, e.components = h, components
	if h != nil {
		top := *h
		top.Components = nil
		e.agent.Health = &top
	}
}

// whole is an agent with the health of its components, as it is stored.
func whole(a fleet.Agent, components tree) fleet.Agent {
	if components != nil && a.Health != nil {
		top := *a.Health
		top.Components = components.unfold()
		a.Health = &top
	}
	return a
}
