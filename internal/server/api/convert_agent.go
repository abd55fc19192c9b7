package api

import (
	"cmp"
	"maps"

	"github.com/collie-otel/collie/internal/apiv1"
	"github.com/collie-otel/collie/internal/fleet"
)

func fromAgent(a *fleet.Agent) apiv1.Agent {
	c := &a.RemoteConfig
	out := apiv1.Agent{
		InstanceUID: a.UID, State: string(a.State()), Connected: a.Connected, Transport: a.Transport,
		FirstSeen: a.FirstSeen, LastSeen: a.LastSeen, ConnectedSince: a.ConnectedSince, Version: a.Version(),
		IdentifyingAttributes: notNil(a.Identifying), NonIdentifyingAttributes: notNil(a.NonIdentifying),
		Capabilities: a.Capabilities.Names(), CustomCapabilities: a.CustomCapabilities,
		RemoteConfig: apiv1.RemoteConfig{
			DesiredHash: c.DesiredHash, OfferedHash: c.OfferedHash, OfferedAt: c.OfferedAt, ReportedHash: c.ReportedHash,
			Status: status(c.Status), Error: c.Error, Withheld: c.Withheld,
		},
		EffectiveConfigHash: a.EffectiveConfigHash, AvailableComponentsHash: a.AvailableComponentsHash,
		ConnectionSettings: apiv1.ConnectionSettings{
			OfferedHash: a.ConnectionSettings.OfferedHash, ReportedHash: a.ConnectionSettings.ReportedHash,
			Status: status(a.ConnectionSettings.Status), Error: a.ConnectionSettings.Error,
		},
		Duplicates: a.Duplicates,
	}
	if a.Health != nil {
		h := fromHealth(*a.Health)
		out.Health = &h
	}
	for _, p := range a.Packages {
		out.Packages = append(out.Packages, apiv1.PackageStatus(p))
	}
	return out
}

func status(s fleet.Status) string { return string(cmp.Or(s, fleet.Unset)) }

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

func fromHealth(h fleet.Health) apiv1.Health {
	out := apiv1.Health{
		Healthy: h.Healthy, Status: h.Status, LastError: h.LastError, StartTime: h.StartTime, StatusTime: h.StatusTime,
	}
	if len(h.Components) > 0 {
		out.Components = make(map[string]apiv1.Health, len(h.Components))
	}
	for name, child := range h.Components {
		out.Components[name] = fromHealth(child)
	}
	return out
}

func fromDesired(set fleet.DesiredSet) apiv1.DesiredConfig {
	out := apiv1.DesiredConfig{Hash: set.Hash, Files: make([]apiv1.DesiredFile, 0, len(set.Files))}
	for _, f := range set.Files {
		out.Files = append(out.Files, apiv1.DesiredFile{
			Name: f.Name, Configuration: f.Configuration, Version: f.Version, Body: string(f.Body),
		})
	}
	return out
}

// fromSeries makes lists of what may be nil.
func fromSeries(s apiv1.Series) apiv1.Series {
	for _, points := range []*[]*float64{&s.Accepted, &s.Refused, &s.Sent, &s.Failed, &s.Dropped, &s.Queue} {
		if *points == nil {
			*points = []*float64{}
		}
	}
	return s
}

func fromEvent(e *fleet.Event) apiv1.Event {
	return apiv1.Event{
		ID: e.ID, Time: e.Time, Actor: e.Actor, Kind: string(e.Kind), Agent: e.Agent, Configuration: e.Configuration,
		Version: e.Version, Rollout: e.Rollout, Hash: e.Hash, Message: e.Message,
	}
}
