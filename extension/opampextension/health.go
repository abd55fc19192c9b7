package opampextension

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/pipeline"

	"github.com/collie-otel/collie/internal/remoteconfig"
)

// extensionsGroup is the group of what is in no pipeline.
const extensionsGroup = "extensions"

// healthTree keeps the last status of every component. Its methods only take a lock: the Collector calls update while it
// holds one of its own.
type healthTree struct {
	grace   time.Duration
	started time.Time     // of the process's service
	changed chan struct{} // capacity 1: build would answer something else

	mu     sync.Mutex // guards all below
	ready  bool
	note   string // said in last_error although nothing is wrong with the components
	groups map[string]map[string]*componentHealth
}

// componentHealth is what a component has said last.
type componentHealth struct {
	status  componentstatus.Status
	err     error
	at      time.Time
	started time.Time // of its last start; zero when it is not running
	failing time.Time // since when it has a recoverable error
}

func newHealthTree(grace time.Duration, started time.Time) *healthTree {
	return &healthTree{grace: grace, started: started, changed: make(chan struct{}, 1), groups: map[string]map[string]*componentHealth{}}
}

func (h *healthTree) wake() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// update takes an event of a component; one that is in several pipelines is in several places.
func (h *healthTree) update(source *componentstatus.InstanceID, event *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	name := componentName(source)
	inPipeline, changed := false, false
	source.AllPipelineIDs(func(id pipeline.ID) bool {
		inPipeline = true
		changed = h.set("pipeline:"+id.String(), name, event) || changed
		return true
	})
	if !inPipeline {
		changed = h.set(extensionsGroup, name, event)
	}
	if changed {
		h.wake()
	}
}

// set takes an event at one place, and says whether it changes anything: memory_limiter says OK at each of its checks, which
// is no news. The caller holds mu.
func (h *healthTree) set(group, name string, event *componentstatus.Event) bool {
	if h.groups[group] == nil {
		h.groups[group] = map[string]*componentHealth{}
	}
	c := h.groups[group][name]
	if c == nil {
		c = &componentHealth{}
		h.groups[group][name] = c
	} else if event.Status() == c.status && errorText(event.Err()) == errorText(c.err) {
		return false
	}
	if event.Status() == componentstatus.StatusRecoverableError && c.status != componentstatus.StatusRecoverableError {
		c.failing = event.Timestamp()
	}
	switch event.Status() {
	case componentstatus.StatusStarting:
		c.started = event.Timestamp()
	case componentstatus.StatusStopped, componentstatus.StatusNone:
		c.started = time.Time{}
	default:
		if c.started.IsZero() {
			c.started = event.Timestamp()
		}
	}
	c.status, c.err, c.at = event.Status(), event.Err(), event.Timestamp()
	return true
}

func (h *healthTree) setReady(ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = ready
	h.wake()
}

func (h *healthTree) isReady() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready
}

// setNote puts a sentence into last_error of the whole agent, until the next one; empty takes it away.
func (h *healthTree) setNote(note string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note = note
	h.wake()
}

// build makes the report. again is after how long it would differ by itself, because a grace period ends; 0 is never.
func (h *healthTree) build(now time.Time) (report *protobufs.ComponentHealth, again time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := summary{healthy: h.ready, status: componentstatus.StatusStarting, grace: h.grace, now: now, at: h.started}
	if h.ready {
		all.status = componentstatus.StatusOK
	}
	report = &protobufs.ComponentHealth{StartTimeUnixNano: nanos(h.started), ComponentHealthMap: map[string]*protobufs.ComponentHealth{}}
	for _, group := range slices.Sorted(maps.Keys(h.groups)) { // in order, so that of two equal errors always the same is told
		components := h.groups[group]
		part := summary{healthy: true, status: componentstatus.StatusOK, grace: h.grace, now: now, at: h.started}
		node := &protobufs.ComponentHealth{ComponentHealthMap: map[string]*protobufs.ComponentHealth{}}
		for _, name := range slices.Sorted(maps.Keys(components)) {
			c := components[name]
			node.ComponentHealthMap[name] = c.report()
			part.add(group+"/"+name, c)
			all.add(group+"/"+name, c)
			if started := nanos(c.started); started != 0 && (node.StartTimeUnixNano == 0 || started < node.StartTimeUnixNano) {
				node.StartTimeUnixNano = started
			}
		}
		part.fill(node)
		report.ComponentHealthMap[group] = node
	}
	all.fill(report)
	if h.note != "" && report.LastError == "" {
		report.LastError = validUTF8(h.note)
	}
	return report, all.again
}

// problems are the components that have an error now, by name; one that is in several pipelines counts once.
func (h *healthTree) problems() map[string]remoteconfig.Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := map[string]remoteconfig.Problem{}
	for _, components := range h.groups {
		for name, c := range components {
			if severity[c.status] > severity[componentstatus.StatusOK] && !found[name].Lasting {
				found[name] = remoteconfig.Problem{Err: errorText(c.err), Lasting: severity[c.status] > severity[componentstatus.StatusRecoverableError]}
			}
		}
	}
	return found
}

// starting are the components whose start has not come back yet, in order.
func (h *healthTree) starting() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := map[string]bool{}
	for _, components := range h.groups {
		for name, c := range components {
			if c.status == componentstatus.StatusStarting {
				found[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (c *componentHealth) report() *protobufs.ComponentHealth {
	r := &protobufs.ComponentHealth{
		Healthy: c.status == componentstatus.StatusOK, Status: c.status.String(),
		StartTimeUnixNano: nanos(c.started), StatusTimeUnixNano: nanos(c.at),
	}
	if c.err != nil {
		r.LastError = validUTF8(c.err.Error())
	}
	return r
}

// summary is the worst of several components.
type summary struct {
	healthy bool
	status  componentstatus.Status
	err     string
	at      time.Time // of the last change
	now     time.Time
	grace   time.Duration
	again   time.Duration
}

// severity orders what a component may say; what is not in it (starting, stopping, stopped) is part of normal life.
var severity = map[componentstatus.Status]int{
	componentstatus.StatusRecoverableError: 1, componentstatus.StatusPermanentError: 2, componentstatus.StatusFatalError: 3,
}

func (s *summary) add(name string, c *componentHealth) {
	if c.at.After(s.at) {
		s.at = c.at
	}
	if severity[c.status] > severity[s.status] {
		s.status = c.status
		if s.err = name; c.err != nil {
			s.err += ": " + c.err.Error()
		}
	}
	switch {
	case severity[c.status] > severity[componentstatus.StatusRecoverableError]:
		s.healthy = false
	case c.status == componentstatus.StatusRecoverableError:
		left := s.grace - s.now.Sub(c.failing)
		if left <= 0 {
			s.healthy = false
		} else if s.again == 0 || left < s.again {
			s.again = left
		}
	}
}

func (s *summary) fill(r *protobufs.ComponentHealth) {
	r.Healthy, r.Status, r.LastError, r.StatusTimeUnixNano = s.healthy, s.status.String(), validUTF8(s.err), nanos(s.at)
}

// validUTF8 keeps a message sendable: a Protobuf string of other bytes cannot be encoded.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func nanos(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano())
}

func componentName(source *componentstatus.InstanceID) string {
	return kindName(source.Kind()) + ":" + source.ComponentID().String()
}

func kindName(k component.Kind) string {
	switch k {
	case component.KindReceiver:
		return "receiver"
	case component.KindProcessor:
		return "processor"
	case component.KindExporter:
		return "exporter"
	case component.KindConnector:
		return "connector"
	default:
		return "extension"
	}
}
