package remote

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/collie-otel/collie/internal/traffic"
	"github.com/collie-otel/collie/tests/harness"
)

// A Collector whose server is away runs what it knows to be good. The server, back, offers the same: nothing is reloaded.
func TestRunsTheLastGoodConfigurationWithoutAServer(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.collector.Stop()
	e.fleet.away()

	at := e.mark()
	e.collector.Start()
	e.awaitLog(at.log, "The OpAMP server is not reachable")
	e.sink.Reset()
	sum := e.run(traffic.LoadConfig{Rate: 500, Duration: 200 * time.Millisecond})
	require.Equal(t, sum.Sent, sum.Acknowledged)
	e.awaitAll(sum)
	require.Equal(t, sum.Sent, e.sink.Summary().Attributes["pushed"]["yes"], "spans that passed the pushed processor")

	e.fleet.always("good", addAttribute)
	e.fleet.back()
	e.fleet.await(at.said, "good", "APPLIED")
	e.requireWorks("attributes/test", "batch")
	e.requireNothingDone(at)
	e.collector.Stop()
}

// requireNothingDone has the server offer something that is refused, so that all before it has been decided, and requires that
// nothing was reloaded or tried since then.
func (e *env) requireNothingDone(at mark) {
	e.t.Helper()
	said, hash := len(e.fleet.said()), fmt.Sprint("refused ", at.log)
	e.fleet.push(hash, "receivers: [")
	e.fleet.await(said, hash, "FAILED")
	require.Zero(e.t, e.logged(at.log, logReload), "the service was reloaded")
	require.Zero(e.t, e.logged(at.log, logApply))
	for _, w := range e.fleet.said()[at.said:] {
		require.NotEqual(e.t, "APPLYING", w.status)
	}
}

// The same configuration again, by its hash or by its content, is answered and not applied.
func TestSameConfigurationIsNotAppliedAgain(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.awaitProcessors("attributes/test", "batch")

	at := e.mark()
	e.fleet.push("good", addAttribute)
	e.fleet.push("good", addAttribute)
	e.requireNothingDone(at)
	require.Equal(t, "FAILED", e.fleet.lastWord(at.said).status)
	require.Len(t, e.fleet.said(), at.said+1, "APPLIED had been said already: %+v", e.fleet.said())

	at = e.mark()
	pushed := e.fleet.push("other hash", "# the same\n"+addAttribute)
	t.Logf("APPLIED without a reload after %v", e.fleet.await(at.said, "other hash", "APPLIED").at.Sub(pushed).Round(time.Millisecond))
	require.Equal(t, "other hash", e.state().Good.name())
	require.Equal(t, "good", e.state().Previous.name())
	e.requireNothingDone(at)

	// What was known by its old name is still known.
	e.fleet.push("good", addAttribute)
	e.fleet.await(at.said, "good", "APPLIED")
	e.requireNothingDone(at)
	e.requireWorks("attributes/test", "batch")
	e.collector.Stop()
}

// An empty map of files is a configuration: the base file alone.
func TestEmptyConfigurationIsTheBaseFile(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	e.fleet.push("good", addAttribute)
	e.fleet.await(0, "good", "APPLIED")
	e.fleet.pushFiles("nothing", nil)
	e.fleet.await(0, "nothing", "APPLIED")
	e.requireWorks("batch")
	e.fleet.pushFiles("empty files", map[string]string{"": "", "b": "# nothing\n"})
	e.fleet.await(0, "empty files", "APPLIED")
	require.Equal(t, 2, e.logged(0, logReload), "one for each change")

	e.collector.Stop()
	e.fleet.awaitGone()
	said := len(e.fleet.said())
	e.collector.Start()
	e.fleet.await(said, "empty files", "APPLIED")
	e.requireWorks("batch")
	e.collector.Stop()
}

// Named files are merged in the order of their names, the empty name first: maps deeply, lists replaced.
func TestNamedFilesAreMergedInNameOrder(t *testing.T) {
	t.Parallel()
	e := start(t, options{})
	value := func(key, value string) string {
		return fmt.Sprintf("attributes/%s: {actions: [{key: %[1]s, value: %q, action: upsert}]}", key, value)
	}
	e.fleet.pushFiles("files", map[string]string{
		"": fmt.Sprintf("processors: {%s, %s}\n", value("a", "from empty"), value("b", "from empty")) +
			"service: {pipelines: {traces: {processors: [attributes/a, attributes/b, batch]}}}",
		"10.yml": fmt.Sprintf("processors: {%s}", value("a", "from 10")),
		"9.yml":  fmt.Sprintf("processors: {%s, %s}", value("a", "from 9"), value("b", "from 9")),
		"a":      "service: {pipelines: {traces: {processors: [attributes/b, attributes/a, batch]}}}",
	})
	e.fleet.await(0, "files", "APPLIED")
	e.sink.Reset()
	e.requireWorks("attributes/b", "attributes/a", "batch")
	attributes := e.sink.Summary().Attributes
	require.Positive(t, attributes["a"]["from 9"])
	require.Positive(t, attributes["b"]["from 9"])
	require.Zero(t, attributes["a"]["from empty"]+attributes["a"]["from 10"]+attributes["b"]["from empty"])
	e.collector.Stop()
}

// cuts are configurations that would cut the agent off, if they could.
func cuts(other string) map[string]string {
	return map[string]string{
		"the extension is null":     `extensions: {opamp: null}`,
		"all extensions are null":   `extensions: null`,
		"no extension is used":      `service: {extensions: []}`,
		"another one is used":       `service: {extensions: [health_check]}`,
		"another server":            `extensions: {opamp: {server: {ws: {endpoint: "ws://` + other + `/v1/opamp"}}}}`,
		"another server, flat keys": `"extensions::opamp::server::ws::endpoint": "ws://` + other + `/v1/opamp"`,
		"another transport":         `extensions: {opamp: {server: {ws: null, http: {endpoint: "http://` + other + `/v1/opamp"}}}}`,
		"other capabilities":        `extensions: {opamp: {capabilities: {accepts_remote_config: false, reports_remote_config: false, reports_effective_config: false}}}`,
		"other settings":            `extensions: {opamp: {storage: {directory: /nowhere}, remote_config: {soak: 1h, mode: replace}, instance_uid: 01234567-89ab-7def-8123-456789abcdef}}`,
		"one that is not in use":    `extensions: {opamp/second: {server: {ws: {endpoint: "ws://` + other + `/v1/opamp"}}}}`,
		"a second one": `
extensions: {opamp/second: {server: {ws: {endpoint: "ws://` + other + `/v1/opamp"}}}}
service: {extensions: [opamp/second]}`,
	}
}

// Remote configuration can neither remove the agent nor change it.
func TestRemoteConfigurationCannotCutTheAgentOff(t *testing.T) {
	t.Parallel()
	for name := range cuts("") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, other := start(t, options{}), startFleet(t)
			e.fleet.push("good", addAttribute)
			e.fleet.await(0, "good", "APPLIED")
			e.requireStaysItself(name, cuts(other.address)[name], other)
		})
	}
}

// requireStaysItself has the server offer a configuration, whatever becomes of it, and looks whether the agent is the same.
func (e *env) requireStaysItself(hash, body string, other *fleet) {
	e.t.Helper()
	uid, settings, connections := e.fleet.agent(), e.running("extensions", "opamp"), e.fleet.connected()
	require.NotNil(e.t, settings)
	e.fleet.push(hash, body)
	said := e.fleet.awaitAny(hash, "APPLIED", "FAILED")
	e.t.Logf("%s: %s", said.status, said.message)
	e.awaitRunning(e.state().Good.name() == hash)

	require.Equal(e.t, settings, e.running("extensions", "opamp"))
	require.Contains(e.t, e.running("service", "extensions"), "opamp")
	require.NotContains(e.t, e.running("service", "extensions"), "opamp/second")
	require.Equal(e.t, uid, e.fleet.agent())
	require.Equal(e.t, connections, e.fleet.connected(), "the connection was lost")
	require.Empty(e.t, other.heard(), "another server was called")

	// It takes the next configuration, and does all that after a restart too.
	e.fleet.push("next", slowOnly)
	e.fleet.await(0, "next", "APPLIED")
	e.fleet.push(hash, body)
	e.fleet.awaitAny(hash, "APPLIED", "FAILED")
	e.collector.Stop()
	e.fleet.awaitGone()
	e.collector.Start()
	from := len(e.fleet.said())
	e.fleet.push("after", addAttribute)
	e.fleet.await(from, "after", "APPLIED")
	require.Equal(e.t, settings, e.running("extensions", "opamp"))
	require.Equal(e.t, uid, e.fleet.agent())
	require.Empty(e.t, other.heard(), "another server was called")
	e.collector.Stop()
}

// awaitRunning waits until the reported configuration is that of the good generation: with the attribute, or without.
func (e *env) awaitRunning(other bool) {
	e.t.Helper()
	harness.Await(e.t, 20*time.Second, "the effective configuration", func() (bool, any) {
		_, attribute := e.running("processors").(map[string]any)["attributes/test"]
		return attribute != other, e.fleet.effectiveConfig()
	})
}

// With mode replace the base file gives the extensions only, and the agent with them.
func TestReplacedConfigurationKeepsTheAgent(t *testing.T) {
	t.Parallel()
	other := startFleet(t)
	const whole = `
receivers: {otlp: {protocols: {grpc: {endpoint: "${env:COLLIE_LISTEN}:${env:COLLIE_OTLP_GRPC_PORT}"}}}}
processors: {attributes/test: {actions: [{key: pushed, value: "yes", action: upsert}]}}
exporters: {otlp_grpc/backend: {endpoint: "${env:COLLIE_BACKEND_ENDPOINT}", tls: {insecure: true}}}
service: {extensions: [], pipelines: {traces: {receivers: [otlp], processors: [attributes/test], exporters: [otlp_grpc/backend]}}}
`
	e := start(t, options{base: edited(t, "remote_config: {", "remote_config: {mode: replace, ")})
	settings := e.await("extensions", "opamp")
	e.fleet.push("whole", whole)
	e.fleet.await(0, "whole", "APPLIED")
	e.requireWorks("attributes/test")
	require.Nil(t, e.running("processors", "batch"), "of the base file")
	require.Equal(t, settings, e.running("extensions", "opamp"))
	require.Contains(t, e.running("service", "extensions"), "opamp")

	e.fleet.push("elsewhere", whole+`extensions: {opamp: {server: {ws: {endpoint: "ws://`+other.address+`/v1/opamp"}}}}`)
	e.fleet.awaitAny("elsewhere", "APPLIED", "FAILED")
	e.fleet.push("part", addAttribute) // no receivers: it cannot run alone
	e.fleet.await(0, "part", "FAILED")
	e.requireWorks("attributes/test")
	require.Equal(t, settings, e.running("extensions", "opamp"))
	require.Empty(t, other.heard(), "another server was called")
	e.fleet.pushFiles("nothing", nil)
	e.fleet.await(0, "nothing", "APPLIED")
	e.requireWorks("batch")
	e.collector.Stop()
}

// await waits until a part of the effective configuration is there.
func (e *env) await(path ...string) (part any) {
	e.t.Helper()
	harness.Await(e.t, 20*time.Second, fmt.Sprint("in the effective configuration: ", path), func() (bool, any) {
		part = e.running(path...)
		return part != nil, e.fleet.effectiveConfig()
	})
	return part
}

// The credentials with which the agent comes are the base file's, too.
func TestRemoteConfigurationCannotChangeTheAgentsCredentials(t *testing.T) {
	t.Parallel()
	const token = "Bearer the-token-of-the-base-file"
	local := edited(t, "  health_check: {", "  bearertokenauth/opamp: {token: the-token-of-the-base-file}\n  health_check: {")
	for old, replacement := range map[string]string{
		`/v1/opamp"}}`:                      `/v1/opamp", auth: bearertokenauth/opamp}}`,
		"extensions: [health_check, opamp]": "extensions: [bearertokenauth/opamp, health_check, opamp]",
	} {
		local = replaceOnce(t, local, old, replacement)
	}
	e := start(t, options{base: local})
	again := func() { // in a new process
		e.collector.Stop()
		e.fleet.awaitGone()
		e.collector.Start()
	}
	for hash, body := range map[string]string{
		"another token": `extensions: {bearertokenauth/opamp: {token: stolen}}`,
		"a header":      `extensions: {bearertokenauth/opamp: {header: X-Other, scheme: Basic}}`,
		"no extension":  `extensions: {bearertokenauth/opamp: null}`,
		"not in use":    `service: {extensions: [opamp]}`,
	} {
		e.fleet.push(hash, body)
		e.fleet.awaitAny(hash, "APPLIED", "FAILED")
		if hash == "another token" {
			e.reconnect() // in the same one
		}
		again()
	}
	e.fleet.push("next", addAttribute)
	e.fleet.await(0, "next", "APPLIED")
	again()
	e.requireWorks("attributes/test", "batch")
	tokens := e.fleet.presented()
	require.GreaterOrEqual(t, len(tokens), 7)
	for i, presented := range tokens {
		require.Equal(t, token, presented, "connection %d", i)
	}
	e.collector.Stop()
}

// reconnect has the agent connect anew.
func (e *env) reconnect() {
	e.t.Helper()
	connections := e.fleet.connected()
	e.fleet.away()
	e.fleet.awaitGone()
	e.fleet.back()
	harness.Await(e.t, 20*time.Second, "another connection", func() (bool, any) {
		now := e.fleet.connected()
		return now > connections, now
	})
}
