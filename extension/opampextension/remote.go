package opampextension

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.opentelemetry.io/collector/component/componentstatus"

	"github.com/collie-otel/collie/internal/overlay"
	"github.com/collie-otel/collie/internal/reload"
	"github.com/collie-otel/collie/internal/remoteconfig"
)

func (e *opampExtension) acceptsRemoteConfig() bool {
	return e.manager != nil && e.cfg.Capabilities.AcceptsRemoteConfig
}

// attach joins session and manager for this run.
func (e *opampExtension) attach() error {
	if e.manager == nil {
		return nil
	}
	checker, err := e.checker()
	if err != nil {
		return err
	}
	session := e.session
	e.manager.Attach(remoteconfig.Host{
		Checker: checker, Logger: e.set.Logger, Grace: e.cfg.HealthGracePeriod, Note: e.health.setNote,
		Starting: e.health.starting, Reread: e.wantReread,
		ReportConnections: func(s remoteconfig.Status) { session.SetConnectionSettingsStatus(connectionsMessage(s)) },
		Report:            func(s remoteconfig.Status) { session.SetRemoteConfigStatus(statusMessage(s)) },
	})
	session.OnRemoteConfig(func(hash []byte, files map[string]*protobufs.AgentConfigFile) {
		e.manager.Offer(generation(hash, files))
	})
	session.OnConnectionSettings(e.manager.OfferConnections)
	return nil
}

// detachUnstarted is for a run in which this extension was not reached, because another one did not start.
func (e *opampExtension) detachUnstarted() error {
	if manager := e.currentManager(); manager != nil {
		return manager.Unstarted(reload.GoesOn(), e.set.Logger)
	}
	return nil
}

// currentManager is nil for an extension that is not the one of the base file: there may be a second one, for a second server.
func (e *opampExtension) currentManager() *remoteconfig.Manager {
	if manager := remoteconfig.Current(); manager != nil && manager.IsFor(e.set.ID) {
		return manager
	}
	return nil
}

func generation(hash []byte, files map[string]*protobufs.AgentConfigFile) *remoteconfig.Generation {
	g := &remoteconfig.Generation{Hash: hash, Files: []overlay.File{}}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		g.Files = append(g.Files, overlay.File{Name: name, Body: files[name].GetBody()})
	}
	return g
}

var outcomes = map[remoteconfig.Outcome]protobufs.RemoteConfigStatuses{
	remoteconfig.Applying: protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLYING,
	remoteconfig.Applied:  protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED,
	remoteconfig.Failed:   protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED,
}

func statusMessage(s remoteconfig.Status) *protobufs.RemoteConfigStatus {
	return &protobufs.RemoteConfigStatus{LastRemoteConfigHash: s.Hash, Status: outcomes[s.Outcome], ErrorMessage: validUTF8(s.Message)}
}

func connectionsMessage(s remoteconfig.Status) *protobufs.ConnectionSettingsStatus {
	// The two enumerations have the same values.
	return &protobufs.ConnectionSettingsStatus{LastConnectionSettingsHash: s.Hash, Status: protobufs.ConnectionSettingsStatuses(outcomes[s.Outcome]), ErrorMessage: validUTF8(s.Message)}
}

// failure is the first error of a component that did not start; its later states hide it.
type failure struct {
	mu   sync.Mutex // guards text
	text string
}

func (f *failure) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text == "" {
		return "the Collector did not become ready; its log has the error"
	}
	return f.text
}

// noteFailure keeps what the manager must know of an event at once. It is called under a lock of the Collector.
func (e *opampExtension) noteFailure(source *componentstatus.InstanceID, event *componentstatus.Event) {
	text := componentName(source) + ": " + errorText(event.Err())
	switch event.Status() {
	case componentstatus.StatusPermanentError:
		if e.health.isReady() {
			return
		}
		e.failure.mu.Lock()
		defer e.failure.mu.Unlock()
		if e.failure.text == "" {
			e.failure.text = text
		}
	case componentstatus.StatusFatalError:
		if e.manager != nil && !errors.Is(event.Err(), errOrphaned) {
			e.manager.Fatal(errors.New(text))
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return "no reason given"
	}
	return err.Error()
}
