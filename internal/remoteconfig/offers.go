package remoteconfig

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/collie-otel/collie/internal/agent"
	"github.com/collie-otel/collie/internal/dryrun"
	"github.com/collie-otel/collie/internal/overlay"
	"github.com/collie-otel/collie/internal/statefile"
)

// Offers are the connection settings that a server has sent for the Collector's own telemetry and for its exporters. They
// come to overlays of the configuration.
type Offers struct {
	// Hash is the server's name for the settings, opaque.
	Hash []byte `json:"hash"`
	// Settings is a ConnectionSettingsOffers message without the part for the OpAMP connection.
	Settings []byte `json:"settings"`
}

func (o *Offers) message() (*protobufs.ConnectionSettingsOffers, error) {
	m := &protobufs.ConnectionSettingsOffers{}
	if o == nil {
		return m, nil
	}
	if err := proto.Unmarshal(o.Settings, m); err != nil {
		return nil, fmt.Errorf("stored connection settings: %w", err)
	}
	return m, nil
}

// updated lays an offer over those before: what it leaves out stays (spec "ConnectionSettingsOffers").
func (o *Offers) updated(hash []byte, offer *protobufs.ConnectionSettingsOffers) (*Offers, error) {
	m, err := o.message()
	if err != nil {
		m = &protobufs.ConnectionSettingsOffers{} // damaged: the server's word alone
	}
	if offer.OwnMetrics != nil {
		m.OwnMetrics = offer.OwnMetrics
	}
	if offer.OwnTraces != nil {
		m.OwnTraces = offer.OwnTraces
	}
	if offer.OwnLogs != nil {
		m.OwnLogs = offer.OwnLogs
	}
	for name, settings := range offer.OtherConnections {
		if m.OtherConnections == nil {
			m.OtherConnections = map[string]*protobufs.OtherConnectionSettings{}
		}
		m.OtherConnections[name] = settings
	}
	settings, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return &Offers{Hash: hash, Settings: settings}, err
}

// certificates is the folder, in the storage directory, of the files that overlays refer to.
const certificates = "certificates"

// mergeResult is a merged configuration with what it needs beside itself.
type mergeResult struct {
	conf  map[string]any
	files overlay.Files
	// resolved is what a check has found it to come to; nil without one.
	resolved *dryrun.Result
	// ignored are settings for exporters that nobody has, or that have no meaning.
	ignored []string
}

// merge makes the configuration of a base file and a generation; it writes nothing.
func (m *Manager) merge(b *base, g *Generation) (*mergeResult, error) {
	offers, err := g.offers().message()
	if err != nil {
		return nil, err
	}
	result := &mergeResult{files: overlay.Files{Dir: filepath.Join(m.dir, certificates)}}
	// Nothing replaces nothing: without remote files the base file runs whole, or an agent that has no configuration yet
	// could not start to get one.
	own, mode := b.conf, b.local.RemoteConfig.Mode
	if len(b.remote(g)) == 0 {
		mode = overlay.ModeMerge
	}
	if mode == overlay.ModeReplace {
		own = nil
	}
	telemetry, err := overlay.Telemetry(own, overlay.TelemetryOffers{
		Metrics: offers.OwnMetrics, Traces: offers.OwnTraces, Logs: offers.OwnLogs, AllowHTTP: b.plaintext,
	}, &result.files)
	if err != nil {
		return nil, err
	}
	result.conf, err = overlay.Merge(overlay.Input{
		Base: b.conf, Telemetry: telemetry, Remote: b.remote(g), Mode: mode, ExtensionID: b.extension, Keep: b.keep,
		Connections: func(merged map[string]any) (connections map[string]any, err error) {
			connections, result.ignored, err = overlay.Connections(merged, offers.OtherConnections)
			return connections, err
		},
	})
	if err == nil {
		m.identify(result.conf, b)
	}
	return result, err
}

const instanceID = "service.instance.id"

// identify gives the Collector's own telemetry the agent's instance UID as service.instance.id, unless the configuration
// has something to say on it. The core would make a new one at each reload.
func (m *Manager) identify(conf map[string]any, b *base) {
	configured, err := uuid.Parse(b.local.InstanceUID)
	if err != nil && b.local.InstanceUID != "" {
		return // a ULID, or a mistake that the extension reports
	}
	uid := agent.InstanceUID(m.dir, configured)
	if uid == uuid.Nil {
		uid = m.newUID
	}
	service := child(conf, "service")
	telemetry := child(service, "telemetry")
	resource := child(telemetry, "resource")
	list, ok := resource["attributes"].([]any)
	if _, said := resource[instanceID]; resource == nil || said || !ok && resource["attributes"] != nil {
		return
	}
	for _, attribute := range list {
		if pair, _ := attribute.(map[string]any); pair["name"] == instanceID {
			return
		}
	}
	resource["attributes"] = append(list, map[string]any{"name": instanceID, "value": uid.String()})
}

// child is a section of a configuration, made if it is missing; nil when something else than a map is there.
func child(parent map[string]any, key string) map[string]any {
	if parent == nil {
		return nil
	}
	if parent[key] == nil {
		parent[key] = map[string]any{}
	}
	section, _ := parent[key].(map[string]any)
	return section
}

// writeFiles puts the files of a configuration on disk. Their names are hashes of their content.
func writeFiles(files *overlay.Files) error {
	for _, f := range files.Wanted() {
		path := filepath.Join(files.Dir, f.Name)
		if content, err := os.ReadFile(path); err == nil && bytes.Equal(content, f.Content) {
			continue
		}
		if err := statefile.Replace(path, f.Content); err != nil {
			return err
		}
	}
	return nil
}

// tidy removes files that no configuration refers to any more. The caller holds mu.
func (m *Manager) tidy() {
	dir := filepath.Join(m.dir, certificates)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there never were any
	}
	var wanted []string
	for _, g := range []*Generation{m.stored.Good, m.stored.Previous, m.stored.Trial} {
		result, err := m.merge(m.base, g)
		if err != nil {
			return
		}
		for _, f := range result.files.Wanted() {
			wanted = append(wanted, f.Name)
		}
	}
	for _, e := range entries {
		if !slices.Contains(wanted, e.Name()) && !strings.HasSuffix(e.Name(), ".new") {
			_ = os.Remove(filepath.Join(dir, e.Name())) // left over, it does no harm
		}
	}
}
