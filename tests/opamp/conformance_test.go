package opamp

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/collie-otel/collie/tests/harness"
)

// duty is something that the protocol asks of an agent; section is where the specification does.
type duty struct {
	name, section string
	only          string // "ws" or "http"; empty is both
	run           func(t *testing.T, e *env)
}

const (
	fullState  = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	components = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportAvailableComponents)
)

func flags(f uint64) reaction { return reaction{answer: &protobufs.ServerToAgent{Flags: f}} }

func heartbeat(seconds uint64) reaction {
	return reaction{answer: &protobufs.ServerToAgent{ConnectionSettings: &protobufs.ConnectionSettingsOffers{
		Opamp: &protobufs.OpAMPConnectionSettings{HeartbeatIntervalSeconds: seconds},
	}}}
}

func errorOf(kind protobufs.ServerErrorResponseType, after time.Duration) reaction {
	e := &protobufs.ServerErrorResponse{Type: kind, ErrorMessage: "no\nthank you"}
	if after > 0 {
		e.Details = &protobufs.ServerErrorResponse_RetryInfo{RetryInfo: &protobufs.RetryInfo{RetryAfterNanoseconds: uint64(after)}}
	}
	return reaction{answer: &protobufs.ServerToAgent{ErrorResponse: e}}
}

func newUID(uid []byte) reaction {
	return reaction{answer: &protobufs.ServerToAgent{AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: uid}}}
}

// requireAlive is what holds after every misbehavior: the agent still talks to the server, and the pipelines never noticed.
func (e *env) requireAlive(from int) int {
	e.t.Helper()
	var asked time.Time
	harness.Await(e.t, 40*time.Second, "a full report after the misbehavior", func() (bool, any) {
		all := e.server.all()
		for i := from; i < len(all); i++ {
			if isFull(all[i]) {
				from = i + 1
				return true, nil
			}
		}
		if time.Since(asked) > 500*time.Millisecond { // what was asked before may have gone to a dying connection
			asked = time.Now()
			e.server.push(flags(fullState))
		}
		return false, last(all)
	})
	require.True(e.t, e.collector.Running())
	return from
}

// gap is the time from the last message before `from` to the first attempt to connect after it.
func (e *env) awaitAttempt(after int) time.Time {
	e.t.Helper()
	harness.Await(e.t, 40*time.Second, "another attempt", func() (bool, any) { n := len(e.server.tried()); return n > after, n })
	return e.server.tried()[after]
}

var duties = []duty{
	{"the first message is complete", "Status Reporting", "", func(t *testing.T, e *env) {
		first := e.start()
		require.True(t, isFull(first), "%v", first)
		require.Len(t, first.InstanceUid, 16)
		require.EqualValues(t, 7, uidOf(first).Version())
		ids := attributes(first.AgentDescription.IdentifyingAttributes)
		require.Equal(t, "otelcol-collie", ids["service.name"])
		require.NotEmpty(t, ids["service.version"])
		require.Contains(t, e.collector.Log(), ids["service.instance.id"], "the one of the Collector's own telemetry")
		others := attributes(first.AgentDescription.NonIdentifyingAttributes)
		for _, key := range []string{"os.type", "os.description", "host.arch", "host.name"} {
			require.NotEmpty(t, others[key], key)
		}
	}},
	{"capabilities are always set", "AgentToServer.capabilities", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(heartbeat(1))
		e.server.await(next, "a heartbeat", isEmpty)
		for _, m := range e.server.all() {
			require.NotZero(t, m.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus))
			require.Zero(t, m.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig), "not offered yet")
		}
	}},
	{"sequence numbers grow by one", "AgentToServer.sequence_num", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(heartbeat(1))
		e.server.await(next+2, "more messages", isEmpty)
		for i, m := range e.server.all() {
			require.EqualValues(t, i, m.SequenceNum)
			require.Equal(t, e.server.all()[0].InstanceUid, m.InstanceUid)
		}
	}},
	{"what is unchanged is left out", "Agent Status Compression", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(heartbeat(1))
		m, _ := e.server.await(next, "a heartbeat", isEmpty)
		require.Len(t, m.InstanceUid, 16)
	}},
	{"ReportFullState", "ServerToAgentFlags", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(flags(fullState))
		e.server.await(next, "a full report", isFull)
	}},
	{"a server that always asks for everything is served once a second", "ServerToAgentFlags", "", func(t *testing.T, e *env) {
		e.startSettled()
		e.server.script(func() { e.server.react = func(*protobufs.AgentToServer) reaction { return flags(fullState) } })
		e.server.push(flags(fullState))
		before := len(e.server.all())
		time.Sleep(3 * time.Second) // the length of the observation
		full := 0
		for _, m := range e.server.all()[before:] {
			if isFull(m) {
				full++
			}
		}
		require.GreaterOrEqual(t, full, 1)
		require.LessOrEqual(t, full, 5)
	}},
	{"components by hash, details on request", "AvailableComponents", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		require.NotEmpty(t, first.AvailableComponents.Hash)
		require.Empty(t, first.AvailableComponents.Components)
		e.server.push(flags(components))
		m, _ := e.server.await(next, "the components", func(m received) bool { return m.AvailableComponents != nil })
		require.Equal(t, first.AvailableComponents.Hash, m.AvailableComponents.Hash)
		otlp := m.AvailableComponents.Components["receivers"].SubComponentMap["otlp"]
		require.Contains(t, attributes(otlp.Metadata)["code.namespace"], "github.com/collie-otel/collie")
	}},
	{"the same components have the same hash", "AvailableComponents", "", func(t *testing.T, e *env) {
		first := e.start()
		e.collector.Stop()
		again := e.start()
		require.Equal(t, first.AvailableComponents.Hash, again.AvailableComponents.Hash)
	}},
	{"heartbeats as offered, counted from the last message", "OpAMPConnectionSettings.heartbeat_interval_seconds", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(heartbeat(2))
		a, next := e.server.await(next, "a heartbeat", isEmpty)
		for a.at.Sub(e.server.all()[next-2].at) < 1500*time.Millisecond { // until the new interval holds
			a, next = e.server.await(next, "a heartbeat", isEmpty)
		}
		b, _ := e.server.await(next, "the next one", isEmpty)
		require.InDelta(t, 2, b.at.Sub(a.at).Seconds(), 0.9)
	}},
	{"an offer without an interval leaves heartbeats alone", "OpAMPConnectionSettings.heartbeat_interval_seconds", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(heartbeat(1))
		_, next = e.server.await(next, "a heartbeat", isEmpty)
		e.server.push(heartbeat(0))
		_, next = e.server.await(next+1, "a heartbeat", isEmpty)
		e.server.await(next, "another one", isEmpty)
	}},
	{"a new instance UID is used from then on", "AgentIdentification", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		uid := uuid.Must(uuid.NewV7())
		e.server.push(newUID(uid[:]))
		m, next := e.server.await(next, "the new UID", func(m received) bool { return uidOf(m) == uid })
		require.True(t, isFull(m), "the server knows nothing of the new one")
		require.NotEqual(t, uidOf(first), uid)
		for _, m := range e.server.all()[next:] {
			require.Equal(t, uid, uidOf(m))
		}
	}},
	{"a new instance UID survives kill -9", "AgentIdentification", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		uid := uuid.Must(uuid.NewV7())
		e.server.push(newUID(uid[:]))
		e.server.await(next, "the new UID", func(m received) bool { return uidOf(m) == uid })
		e.collector.Kill()
		require.Equal(t, uid, uidOf(e.start()))
	}},
	{"an instance UID is kept", "AgentToServer.instance_uid", "", func(t *testing.T, e *env) {
		first := e.start()
		e.collector.Stop()
		require.Equal(t, uidOf(first), uidOf(e.start()))
	}},
	{"a configured instance UID is used", "AgentToServer.instance_uid", "", func(t *testing.T, e *env) {
		uid := uuid.New()
		e.edit(func(opamp, _ map[string]any) { opamp["instance_uid"] = uid.String() })
		require.Equal(t, uid, uidOf(e.start()))
	}},
	{"without storage the server is asked for a UID", "AgentToServerFlags.RequestInstanceUid", "", func(t *testing.T, e *env) {
		blocked := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(blocked, nil, 0o600))
		e.edit(func(opamp, _ map[string]any) {
			opamp["storage"] = map[string]any{"directory": filepath.Join(blocked, "below")}
		})
		_, next := e.startSettled()
		require.EqualValues(t, 1, e.server.all()[0].Flags)
		uid := uuid.Must(uuid.NewV7())
		e.server.push(newUID(uid[:]))
		m, _ := e.server.await(next, "the new UID", func(m received) bool { return uidOf(m) == uid })
		require.Zero(t, m.Flags)
	}},
	{"an instance UID that is none is ignored", "AgentIdentification", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		for _, bad := range [][]byte{{1, 2, 3}, make([]byte, 15), make([]byte, 16)} {
			e.server.push(newUID(bad))
		}
		next = e.requireAlive(next)
		require.Equal(t, uidOf(first), uidOf(e.server.all()[next-1]))
	}},
	{"messages for others are ignored", "ServerToAgent.instance_uid", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		other, uid := uuid.New(), uuid.New()
		e.server.push(reaction{answer: &protobufs.ServerToAgent{
			InstanceUid: other[:], AgentIdentification: &protobufs.AgentIdentification{NewInstanceUid: uid[:]},
		}})
		next = e.requireAlive(next)
		require.Equal(t, uidOf(first), uidOf(e.server.all()[next-1]))
	}},
	{"unknown flags are ignored", "ServerToAgentFlags", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(flags(1<<40 | 1<<7))
		e.requireAlive(next)
	}},
	{"unknown fields are ignored", "Interoperability of Partial Implementations", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		raw := []byte{0}
		if e.transport == "http" {
			raw = nil
		}
		raw = protowire.AppendTag(raw, 1, protowire.BytesType)
		raw = protowire.AppendBytes(raw, first.InstanceUid)
		raw = protowire.AppendTag(raw, 500, protowire.BytesType)
		raw = protowire.AppendString(raw, "from the future")
		e.server.push(reaction{raw: raw})
		e.requireAlive(next)
	}},
	{"BAD_REQUEST is not repeated", "ServerErrorResponse", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(errorOf(protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, 0))
		e.requireAlive(next)
	}},
	{"an error response stands alone", "ServerErrorResponse", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		re, uid := errorOf(protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest, 0), uuid.New()
		re.answer.AgentIdentification = &protobufs.AgentIdentification{NewInstanceUid: uid[:]}
		e.server.push(re)
		next = e.requireAlive(next)
		require.Equal(t, uidOf(first), uidOf(e.server.all()[next-1]))
	}},
	{"UNAVAILABLE is waited out", "Throttling", "", func(t *testing.T, e *env) {
		e.startSettled()
		e.server.push(errorOf(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, 2*time.Second))
		waitFor(t, e, 2*time.Second)
	}},
	{"UNAVAILABLE without a time", "Throttling", "", func(t *testing.T, e *env) {
		e.startSettled()
		e.server.push(errorOf(protobufs.ServerErrorResponseType_ServerErrorResponseType_Unavailable, 0))
		waitFor(t, e, 700*time.Millisecond)
	}},
	{"503 with Retry-After in seconds", "Throttling", "", func(t *testing.T, e *env) {
		refuseOnce(e, http.StatusServiceUnavailable, func() string { return "2" })
		requireRetry(t, e, 2*time.Second)
	}},
	{"429 with Retry-After as a date", "Throttling", "", func(t *testing.T, e *env) {
		refuseOnce(e, http.StatusTooManyRequests, func() string { return time.Now().Add(3 * time.Second).UTC().Format(http.TimeFormat) })
		requireRetry(t, e, 1900*time.Millisecond)
	}},
	{"401 is tried again with patience", "Authentication", "", func(t *testing.T, e *env) {
		refuseOnce(e, http.StatusUnauthorized, func() string { return "" })
		requireRetry(t, e, 700*time.Millisecond)
	}},
	{"the agent says goodbye", "Closing Connection", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.collector.Stop()
		m, next := e.server.await(next, "agent_disconnect", func(m received) bool { return m.AgentDisconnect != nil })
		require.EqualValues(t, next-1, m.SequenceNum)
		require.Len(t, e.server.all(), next, "it is the last message")
		if e.transport == "ws" {
			harness.Await(t, 10*time.Second, "a Close frame", func() (bool, any) {
				e.server.mu.Lock()
				defer e.server.mu.Unlock()
				return e.server.closeStatus == websocket.StatusNormalClosure, e.server.closeStatus
			})
		}
	}},
	{"a lost first report is sent again in full", "Agent Status Compression", "", func(t *testing.T, e *env) {
		lose := reaction{drop: true}
		if e.transport == "http" {
			lose = reaction{status: http.StatusInternalServerError}
		}
		e.server.script(func() { e.server.pending = []reaction{lose} })
		first := e.start()
		again, _ := e.server.await(1, "the report again", func(received) bool { return true })
		require.True(t, isFull(first))
		require.True(t, isFull(again))
		require.Equal(t, first.SequenceNum+1, again.SequenceNum)
	}},
	{"text frames", "WebSocket Message Format", "ws", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(reaction{raw: []byte("hello"), text: true})
		e.requireAlive(next)
	}},
	{"garbage", "WebSocket Message Format", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(reaction{raw: []byte{0, 0xff, 0xff, 0xff, 0xff}})
		e.requireAlive(next)
	}},
	{"an empty frame, and a header that is not 0", "WebSocket Message Format", "ws", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.server.push(reaction{raw: []byte{}})
		e.server.push(reaction{raw: []byte{1, 2, 3}})
		e.requireAlive(next)
		require.Equal(t, 1, e.server.connected())
	}},
	{"a message that is too large", "Message Size Limits", "", func(t *testing.T, e *env) {
		e.edit(limitTo1MiB)
		_, next := e.startSettled()
		e.server.push(reaction{raw: bytes.Repeat([]byte{0}, 2<<20)})
		e.requireAlive(next)
	}},
	{"a compression bomb", "Message Size Limits", "", func(t *testing.T, e *env) {
		e.edit(limitTo1MiB)
		_, next := e.startSettled()
		before := e.collector.RSS()
		bomb := reaction{raw: make([]byte, 200<<20)} // permessage-deflate packs it
		if e.transport == "http" {
			var packed bytes.Buffer
			w := gzip.NewWriter(&packed)
			_, err := w.Write(bomb.raw)
			require.NoError(t, err)
			require.NoError(t, w.Close())
			bomb = reaction{raw: packed.Bytes(), header: map[string]string{"Content-Encoding": "gzip"}}
		}
		e.server.push(bomb)
		e.requireAlive(next)
		require.Less(t, e.collector.RSS()-before, int64(64<<20), "it was not unpacked")
	}},
	{"accept, then close", "Restoring WebSocket Connection", "ws", func(t *testing.T, e *env) {
		e.server.script(func() { e.server.onConnect = func(c *websocket.Conn) { _ = c.CloseNow() } })
		e.collector.Start()
		requireFewAttempts(t, e)
	}},
	{"connections that die with every answer", "Restoring WebSocket Connection", "", func(t *testing.T, e *env) {
		e.server.script(func() { e.server.react = func(*protobufs.AgentToServer) reaction { return reaction{drop: true} } })
		e.collector.Start()
		requireFewAttempts(t, e)
	}},
	{"a server that refuses everybody", "Throttling", "", func(t *testing.T, e *env) {
		e.server.script(func() {
			e.server.refuse = func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusForbidden); return true }
		})
		e.collector.Start()
		requireFewAttempts(t, e)
		require.Equal(t, 1, countLines(e.collector.Log(), "OpAMP server is not reachable"), "one line per change of state")
	}},
	{"restart keeps the process and the session", "ServerToAgentCommand", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		pid := e.collector.PID()
		e.server.push(reaction{answer: &protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{}}})
		harness.Await(t, 20*time.Second, "the reload", func() (bool, any) {
			return countLines(e.collector.Log(), "Everything is ready.") == 2, nil
		})
		next = e.requireAlive(next)
		require.Equal(t, pid, e.collector.PID())
		requireOneSession(t, e, first, next)
	}},
	{"restart is refused when the configuration is not valid any more", "ServerToAgentCommand", "", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		e.config["receivers"] = map[string]any{"nonesuch": nil}
		e.write()
		e.server.push(reaction{answer: &protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{}}})
		m, next := e.server.await(next, "the refusal", func(m received) bool { return m.Health.GetLastError() != "" })
		require.Contains(t, m.Health.LastError, "restart refused")
		require.Contains(t, m.Health.LastError, "nonesuch")
		require.True(t, m.Health.Healthy, "the Collector goes on as it was")
		e.requireAlive(next)
	}},
	{"restart without the capability", "ServerToAgentCommand", "", func(t *testing.T, e *env) {
		e.edit(switchOff("accepts_restart_command"))
		first, next := e.startSettled()
		require.Zero(t, first.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_AcceptsRestartCommand))
		e.server.push(reaction{answer: &protobufs.ServerToAgent{Command: &protobufs.ServerToAgentCommand{}}})
		e.requireAlive(next)
		require.Equal(t, 1, countLines(e.collector.Log(), "Everything is ready."))
	}},
	{"SIGHUP keeps the session and reports the new configuration", "EffectiveConfig", "", func(t *testing.T, e *env) {
		first, next := e.startSettled()
		e.config["exporters"] = map[string]any{"debug": map[string]any{"verbosity": "detailed"}}
		e.write()
		e.collector.Signal(syscall.SIGHUP)
		m, next := e.server.await(next, "the new configuration", func(m received) bool { return m.EffectiveConfig != nil })
		require.Contains(t, string(m.EffectiveConfig.ConfigMap.ConfigMap[""].Body), "Detailed")
		requireOneSession(t, e, first, next)
	}},
	{"the tree of health", "ComponentHealth", "", func(t *testing.T, e *env) {
		begin := time.Now()
		_, next := e.startSettled()
		h := e.server.all()[next-1].Health
		require.Equal(t, "StatusOK", h.Status)
		require.Empty(t, h.LastError)
		require.InDelta(t, begin.UnixNano(), int64(h.StartTimeUnixNano), float64(30*time.Second))
		traces := h.ComponentHealthMap["pipeline:traces"]
		require.True(t, traces.Healthy)
		for _, name := range []string{"receiver:otlp", "processor:batch", "exporter:otlp_grpc", "exporter:debug"} {
			require.True(t, traces.ComponentHealthMap[name].GetHealthy(), name)
			require.NotZero(t, traces.ComponentHealthMap[name].StartTimeUnixNano)
			require.NotZero(t, traces.ComponentHealthMap[name].StatusTimeUnixNano)
		}
		require.Contains(t, h.ComponentHealthMap["extensions"].ComponentHealthMap, "extension:opamp")
	}},
	{"health switched off", "AgentCapabilities.ReportsHealth", "", func(t *testing.T, e *env) {
		e.edit(switchOff("reports_health"))
		first := e.start()
		require.Nil(t, first.Health)
		require.Zero(t, first.Capabilities&uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth))
	}},
	{"effective configuration switched off", "AgentCapabilities.ReportsEffectiveConfig", "", func(t *testing.T, e *env) {
		e.edit(switchOff("reports_effective_config"))
		require.Nil(t, e.start().EffectiveConfig)
	}},
	{"components switched off", "AgentCapabilities.ReportsAvailableComponents", "", func(t *testing.T, e *env) {
		e.edit(switchOff("reports_available_components"))
		require.Nil(t, e.start().AvailableComponents)
	}},
	{"secrets do not leave the process", "EffectiveConfig", "", func(t *testing.T, e *env) {
		e.edit(func(opamp, server map[string]any) {
			server["headers"] = map[string]any{"authorization": "Bearer ${env:APP_TOKEN}"}
			opamp["agent_description"] = map[string]any{"non_identifying_attributes": map[string]any{"token": "${env:APP_TOKEN}", "backend": "${env:APP_HOST}"}}
			opamp["capabilities"] = map[string]any{"reports_raw_config": true}
		})
		first := e.start()
		require.Equal(t, "Bearer s3cr3t-value", first.header.Get("Authorization"), "it is sent where it belongs")
		files := first.EffectiveConfig.ConfigMap.ConfigMap
		for name, file := range files {
			require.NotContains(t, string(file.Body), "s3cr3t-value", name)
		}
		require.Contains(t, string(files[""].Body), "backend.example")
		require.Contains(t, string(files["raw"].Body), "${env:APP_HOST}")
		require.Equal(t, "text/yaml", files[""].ContentType)
	}},
	{"a server that does not take configurations gets none", "Interoperability of Partial Implementations", "", func(t *testing.T, e *env) {
		e.server.script(func() {
			e.server.react = func(*protobufs.AgentToServer) reaction {
				return reaction{answer: &protobufs.ServerToAgent{Capabilities: uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus)}}
			}
		})
		_, next := e.startSettled()
		e.config["exporters"] = map[string]any{"debug": map[string]any{"verbosity": "detailed"}}
		e.write()
		e.collector.Signal(syscall.SIGHUP)
		harness.Await(t, 20*time.Second, "the reload", func() (bool, any) {
			return countLines(e.collector.Log(), "Everything is ready.") == 2, nil
		})
		e.server.push(reaction{answer: &protobufs.ServerToAgent{Flags: fullState, Capabilities: uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus)}})
		m, _ := e.server.await(next, "the status", func(m received) bool { return m.AgentDescription != nil })
		require.Nil(t, m.EffectiveConfig)
	}},
	{"content type and UID of requests", "Plain HTTP Transport", "http", func(t *testing.T, e *env) {
		first := e.start()
		require.Equal(t, "application/x-protobuf", first.header.Get("Content-Type"))
		require.Equal(t, uidOf(first).String(), first.header.Get("OpAMP-Instance-UID"))
	}},
	{"requests are polled as configured", "Plain HTTP Transport", "http", func(t *testing.T, e *env) {
		_, next := e.startSettled()
		a, next := e.server.await(next, "a poll", isEmpty)
		b, _ := e.server.await(next, "the next poll", isEmpty)
		require.Less(t, b.at.Sub(a.at), 2*time.Second)
		require.Greater(t, b.at.Sub(a.at), 100*time.Millisecond)
	}},
}

func limitTo1MiB(opamp, _ map[string]any) {
	opamp["server"].(map[string]any)["max_message_size"] = 1 << 20
}

func switchOff(capability string) func(opamp, _ map[string]any) {
	return func(opamp, _ map[string]any) { opamp["capabilities"] = map[string]any{capability: false} }
}

func countLines(text, part string) int { return bytes.Count([]byte(text), []byte(part)) }

// refuseOnce answers the first attempt with a status.
func refuseOnce(e *env, status int, retryAfter func() string) {
	e.server.script(func() {
		refused := false
		e.server.refuse = func(w http.ResponseWriter) bool {
			if refused {
				return false
			}
			refused = true
			if after := retryAfter(); after != "" {
				w.Header().Set("Retry-After", after)
			}
			w.WriteHeader(status)
			return true
		}
	})
}

// requireRetry starts the Collector and wants the second attempt not before wait after the first, and then all to be well.
func requireRetry(t *testing.T, e *env, wait time.Duration) {
	t.Helper()
	e.startSettled()
	tried := e.server.tried()
	require.GreaterOrEqual(t, tried[1].Sub(tried[0]), wait)
}

// waitFor wants silence for that long after an answer that has just been pushed, and then all to be well.
func waitFor(t *testing.T, e *env, wait time.Duration) {
	t.Helper()
	if e.transport == "http" { // it goes out with the answer to the next poll
		harness.Await(t, 10*time.Second, "the answer fetched", func() (bool, any) {
			e.server.mu.Lock()
			defer e.server.mu.Unlock()
			return len(e.server.pending) == 0, nil
		})
	}
	attempts, sent := len(e.server.tried()), time.Now()
	again := e.awaitAttempt(attempts)
	require.GreaterOrEqual(t, again.Sub(sent), wait-100*time.Millisecond)
	e.requireAlive(len(e.server.all()))
}

// requireFewAttempts counts attempts to connect over more than ten seconds: never more than five in ten.
func requireFewAttempts(t *testing.T, e *env) {
	t.Helper()
	time.Sleep(13 * time.Second) // the length of the observation
	tried := e.server.tried()
	require.GreaterOrEqual(t, len(tried), 2, "it does not give up")
	for i := 5; i < len(tried); i++ {
		require.Greater(t, tried[i].Sub(tried[i-5]), 10*time.Second, "six attempts: "+strconv.Itoa(len(tried)))
	}
	require.True(t, e.collector.Running())
}

// requireOneSession wants all messages up to next on one connection, with one UID and without a gap.
func requireOneSession(t *testing.T, e *env, first received, next int) {
	t.Helper()
	for i, m := range e.server.all()[:next] {
		require.Equal(t, first.connection, m.connection)
		require.Equal(t, uidOf(first), uidOf(m))
		require.EqualValues(t, i, m.SequenceNum)
		require.Nil(t, m.AgentDisconnect)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"ws", "http"} {
		for _, d := range duties {
			if d.only != "" && d.only != transport {
				continue
			}
			t.Run(transport+"/"+d.section+"/"+d.name, func(t *testing.T) {
				t.Parallel()
				d.run(t, newEnv(t, transport))
			})
		}
	}
}
