package overlay

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/confmap"
)

// seed is a remote body, and a part of the error that it must give; "" is none.
type seed struct{ body, want string }

var bodySeeds = []seed{
	{base, ""},
	{exporters, ""},
	{"", ""},
	{"x: &x {a: 1, b: {c: 2}}\ny: &y {a: 3, <<: *x}\nz: {<<: [*x, *y], d: [*x, *y]}", ""},
	{"extensions: {opamp: {a: 1}, ' opamp': {}}\nservice: {extensions: [zpages, opamp]}", ""},
	{"extensions:\nservice:", ""},
	{"a::b: {c::d: 1}\na: {e: [{f::g: 1}]}", ""},
	{"a: [1, 2.5, 1e400, .nan, 0x10, 010, 0o10, true, yes, null, ~, 2024-01-01, '1', !!str 1, !!binary aGk=, !x y]", ""},
	{"a: {1: x, true: y, null: z, 1.5: w}", ""},
	{"a: {'<<': {b: 1}, \"<<\": 2}", "is there twice"},
	{"a: {b: 1}\na::b: 2", "set twice"},
	{"a: 1\na: 2", "is there twice"},
	{"'exporters:': {otlp: }", "ends in a colon"},
	{"a: {':b': 1, 'c:': 1, 'd:': {}}", ""},
	{"a: 1\n---\nb: 2", "a second YAML document"},
	{"a: &a [*a]", "contains itself"},
	{"a: {<<: 1}", "a merge key takes a map"},
	{"a: \xff", "not valid UTF-8"},
	{"[a]", "not a map"},
	{"service: ${env:X}", "service is not a map"},
	{"service: {extensions: {a: b}}", "service::extensions is not a list"},
	{"service: {extensions: [1]}", "is not the id of an extension"},
}

// stricter are the reasons to refuse a body that the Collector would take.
var stricter = []string{
	"is there twice", "set twice", "ends in a colon", "a second YAML document", "nested more than", "aliases expanded", "not valid UTF-8",
	"service is not a map", "extensions is not", "is not the id of an extension", "contains itself", "did not find expected",
}

func TestSeedsReachWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	for _, s := range bodySeeds {
		_, err := Remote([]File{{Body: []byte(s.body)}})
		if s.want == "" {
			require.NoError(t, err, s.body)
		} else {
			require.ErrorContains(t, err, s.want, s.body)
		}
	}
	for _, s := range policySeeds {
		remote, err := Remote([]File{{Body: []byte(s.body)}})
		require.NoError(t, err, s.body)
		if s.want == "" {
			require.Empty(t, fuzzPolicy.Check(remote), s.body)
		} else {
			require.ErrorContains(t, fuzzPolicy.Check(remote)[0], s.want, s.body)
		}
	}
}

// plain is a form in which not-a-number equals itself.
func plain(v any) string { return fmt.Sprintf("%#v", v) }

// asCore is what the Collector reads from a body, nil when it cannot.
func asCore(body string) *confmap.Conf {
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(body))
	if err != nil {
		return nil
	}
	conf, err := retrieved.AsConf()
	if err != nil {
		return nil
	}
	return conf
}

// A body is read as the Collector reads it, or refused for a reason that is known.
func FuzzDecode(f *testing.F) {
	for _, s := range bodySeeds {
		f.Add(s.body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		layers, err := decodeAll([]File{{Body: []byte(body)}})
		core := asCore(body)
		if err != nil {
			known := false
			for _, reason := range stricter {
				known = known || strings.Contains(err.Error(), reason)
			}
			require.True(t, core == nil || known, "%v", err)
			return
		}
		if core != nil {
			require.Equal(t, plain(core.ToStringMap()), plain(layers[0].tree))
		}
	})
}

// withoutExtensions drops the one list that is united.
func withoutExtensions(m map[string]any) map[string]any {
	if service, ok := m["service"].(map[string]any); ok {
		delete(service, "extensions")
		if len(service) == 0 {
			delete(m, "service")
		}
	}
	return m
}

// leaves calls f with every value that is not a map, and its keys.
func leaves(m map[string]any, keys []string, f func(keys []string, value any)) {
	for key, value := range m {
		path := append(keys[:len(keys):len(keys)], key)
		if sub, ok := value.(map[string]any); ok {
			leaves(sub, path, f)
			continue
		}
		f(path, value)
	}
}

func lookUp(m map[string]any, keys []string) any {
	for _, key := range keys[:len(keys)-1] {
		m, _ = m[key].(map[string]any)
	}
	return m[keys[len(keys)-1]]
}

func FuzzMerge(f *testing.F) {
	for i, s := range bodySeeds {
		f.Add(s.body, bodySeeds[(i+1)%len(bodySeeds)].body, i%2 == 0)
		f.Add(base, s.body, i%2 == 1)
	}
	f.Fuzz(func(t *testing.T, first, second string, replace bool) {
		in := Input{Base: fromYAML(t, base), Mode: ModeMerge, ExtensionID: "opamp", Keep: []string{"bearer"}}
		if replace {
			in.Mode = ModeReplace
		}
		before := plain(in.Base)
		in.Remote = []File{{"b", []byte(second)}, {"a", []byte(first)}}
		got, err := Merge(in)
		require.Equal(t, before, plain(in.Base), "inputs are unchanged")
		require.Equal(t, second, string(in.Remote[0].Body))
		require.Equal(t, "b", in.Remote[0].Name)
		if err != nil {
			return
		}
		want := fromYAML(t, base)
		for _, id := range []string{"opamp", "bearer"} {
			require.Equal(t, get(want, "extensions::"+id), lookUp(got, []string{"extensions", id}))
			require.Contains(t, lookUp(got, []string{"service", "extensions"}), id)
		}

		in.Remote = append(in.Remote, File{"c", []byte(second)})
		again, err := Merge(in)
		if err == nil { // it may be too large now
			require.Equal(t, plain(got), plain(again), "merging twice is merging once")
		}

		// The later name wins; nothing but the guard stands above it.
		remote, err := Remote([]File{{"b", []byte(second)}})
		require.NoError(t, err)
		leaves(withoutExtensions(remote), nil, func(keys []string, value any) {
			if keys[0] != "extensions" && (keys[0] != "service" || len(keys) > 1) {
				require.Equal(t, plain(value), plain(lookUp(got, keys)), "%v", keys)
			}
		})

		both, err := Remote([]File{{"a", []byte(first)}, {"b", []byte(second)}})
		require.NoError(t, err)
		a, b := asCore(first), asCore(second)
		if a != nil && b != nil && !setsService(b) {
			require.NoError(t, a.Merge(b))
			require.Equal(t, plain(withoutExtensions(a.ToStringMap())), plain(withoutExtensions(both)), "as the Collector merges")
		}
	})
}

// setsService tells the one case in which the union of extensions outlives what the Collector would drop.
func setsService(c *confmap.Conf) bool {
	service, there := c.ToStringMap()["service"]
	return there && service == nil
}

var fuzzPolicy = Policy{
	Allowed: map[string][]string{"receivers": {"nop", "otlp/good"}},
	Denied:  map[string][]string{"exporters": {"otlp_grpc", "debug/bad"}, "extensions": {"opamp"}},
	Aliases: exporterAliases,
}

var policySeeds = []seed{
	{"receivers: {nop: , nop/x: , otlp/good: }\nexporters: {otlp_http: , debug: }", ""},
	{"receivers: {otlp: }", "not allowed"},
	{"exporters: {otlp: }", "denied"},
	{"exporters: {otlp_grpc/x: }", "denied"},
	{"exporters: {debug/bad: }", "denied"},
	{"exporters: ${env:OVERLAY_FUZZ}", "not a map"},
	{"exporters: {' otlp': }", "spaces"},
	{"exporters: {'otlp / x': }", "spaces"},
	{"exporters: {'${env:OVERLAY_FUZZ}': }", "malformed"},
	{"'exporters::otlp::endpoint': x", "denied"},
	{"exporters::otlp:", "denied"},
	{"x: &x {otlp: }\nexporters: {<<: *x}", "denied"},
	{"x: &x {exporters: {otlp: }}\n<<: *x", "denied"},
	{"x: &x exporters\n*x : {otlp: }", "denied"},
	{"exporters: {\"otl\\x70\": }", "denied"},
	{"exporters: {!!str otlp: }", "denied"},
	{"processors: ${env:OVERLAY_FUZZ}", ""},
}

// A component that is denied is not there when the Collector has resolved and unmarshalled what passed.
func FuzzPolicy(f *testing.F) {
	f.Setenv("OVERLAY_FUZZ", "{otlp: {}, otlp_grpc/x: {}, debug/bad: {}, opamp: {}}")
	for _, s := range policySeeds {
		f.Add(s.body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		remote, err := Remote([]File{{Body: []byte(body)}})
		if err != nil || len(fuzzPolicy.Check(remote)) > 0 {
			return
		}
		conf, err := tryResolve(remote, true)
		if err != nil {
			return
		}
		var declared struct {
			Receivers  map[component.ID]any `mapstructure:"receivers"`
			Exporters  map[component.ID]any `mapstructure:"exporters"`
			Extensions map[component.ID]any `mapstructure:"extensions"`
		}
		if conf.Unmarshal(&declared, confmap.WithIgnoreUnused()) != nil {
			return
		}
		for id := range declared.Exporters {
			require.NotContains(t, []string{"otlp", "otlp_grpc"}, id.Type().String())
			require.NotEqual(t, "debug/bad", id.String())
		}
		for id := range declared.Receivers {
			require.True(t, id.Type().String() == "nop" || id.String() == "otlp/good", id.String())
		}
		for id := range declared.Extensions {
			require.NotEqual(t, "opamp", id.Type().String())
		}
	})
}

// What is offered arrives byte for byte, or is refused.
func FuzzOffers(f *testing.F) {
	f.Setenv("OVERLAY_FUZZ", "must not appear")
	for _, value := range []string{awkward, "", "${env:OVERLAY_FUZZ}", "$", "$$$", "$${env:OVERLAY_FUZZ}", "}${", "${a${env:OVERLAY_FUZZ}}", "true", "1", "null", "~", "a: b", "- a", "<<", "\ttab", "a\nb", "\xff", "é"} {
		f.Add("X-Name", value, "v1/metrics")
		f.Add("$x-${y}", value, "$OVERLAY_FUZZ/$$")
		f.Add("$$x", value, "${env:OVERLAY_FUZZ}")
	}
	f.Fuzz(func(t *testing.T, name, value, path string) {
		url := "https://h.example/" + path
		telemetry := destination(url)
		telemetry.Headers = headers(name, value)
		overlay, err := Telemetry(nil, TelemetryOffers{Traces: telemetry}, nil)
		if err == nil {
			again, err := Telemetry(nil, TelemetryOffers{Traces: telemetry}, nil)
			require.NoError(t, err)
			require.Equal(t, overlay, again)
			otlp := telemetryConfig(t, resolve(t, overlay, true)).Traces.Processors[0].Batch.Exporter.OTLP
			require.Equal(t, url, *otlp.Endpoint)
			require.Equal(t, name, otlp.Headers[0].Name)
			require.Equal(t, value, *otlp.Headers[0].Value)
		}
		offered := offers{"otlp_http/list": {DestinationEndpoint: url, Headers: headers(name, value)}, "otlp_http": {DestinationEndpoint: url, Headers: headers(name, value)}}
		_, _, err = Connections(fromYAML(t, exporters), offered)
		if err != nil {
			return
		}
		conf := connected(t, offered, true)
		for _, exporter := range []string{"otlphttp/list", "otlp_http"} {
			got := unmarshal(t, conf, exporter, confighttp.ClientConfig{})
			require.Equal(t, url, got.Endpoint)
			header, ok := got.Headers.Get(name)
			require.True(t, ok)
			require.Equal(t, value, string(header))
		}
	})
}
