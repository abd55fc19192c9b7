package overlay

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"
)

// fromYAML reads YAML as the Collector does.
func fromYAML(t testing.TB, text string) map[string]any {
	t.Helper()
	retrieved, err := confmap.NewRetrievedFromYAML([]byte(text))
	require.NoError(t, err)
	conf, err := retrieved.AsConf()
	require.NoError(t, err)
	return conf.ToStringMap()
}

func toYAML(t testing.TB, m map[string]any) string {
	t.Helper()
	text, err := yaml.Marshal(m)
	require.NoError(t, err)
	return string(text)
}

const base = `
extensions:
  opamp: {server: {ws: {endpoint: "ws://127.0.0.1:4320"}}, auth: bearer}
  bearer: {token: "${env:TOKEN}"}
  health_check:
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:4317}}}
processors:
  batch: {timeout: 1s, send_batch_size: 10}
exporters:
  debug: {verbosity: basic}
service:
  extensions: [opamp, bearer, health_check]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [debug]}
`

func remote(bodies ...string) []File {
	var files []File
	for i, body := range bodies {
		files = append(files, File{Name: string(rune('a' + i)), Body: []byte(body)})
	}
	return files
}

// get returns what is at a path such as service::pipelines.
func get(m map[string]any, path string) any {
	return confmap.NewFromStringMap(m).Get(path)
}

func TestMerge(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		remote []File
		path   string
		want   any
	}{
		"maps merge deeply":                  {remote("processors: {batch: {timeout: 2s}}"), "processors::batch", map[string]any{"timeout": "2s", "send_batch_size": 10}},
		"an empty map changes nothing":       {remote("processors: {batch: {}}"), "processors::batch", map[string]any{"timeout": "1s", "send_batch_size": 10}},
		"null replaces a map and stays":      {remote("processors: {batch: }"), "processors", map[string]any{"batch": nil}},
		"null replaces a section":            {remote("processors:"), "processors", nil},
		"a new component may be null":        {remote("processors: {memory_limiter: }"), "processors::memory_limiter", nil},
		"lists are replaced":                 {remote("service: {pipelines: {traces: {exporters: [a, b]}}}"), "service::pipelines::traces::exporters", []any{"a", "b"}},
		"a later name wins":                  {remote("exporters: {debug: {verbosity: normal}}", "exporters: {debug: {verbosity: detailed}}"), "exporters::debug::verbosity", "detailed"},
		"the empty name is first":            {[]File{{"x", []byte("exporters: {debug: {verbosity: x}}")}, {"", []byte("exporters: {debug: {verbosity: empty}}")}}, "exporters::debug::verbosity", "x"},
		"extensions are united":              {remote("service: {extensions: [zpages, opamp]}", "service: {extensions: [pprof, zpages]}"), "service::extensions", []any{"opamp", "bearer", "health_check", "zpages", "pprof"}},
		"null extensions add nothing":        {remote("service: {extensions: }"), "service::extensions", []any{"opamp", "bearer", "health_check"}},
		"spaces do not make a new extension": {remote(`service: {extensions: [" opamp "]}`), "service::extensions", []any{"opamp", "bearer", "health_check"}},
		"joined keys are keys":               {remote(`"exporters::debug::verbosity": normal`), "exporters::debug", map[string]any{"verbosity": "normal"}},
		"merge keys":                         {remote("x: &x {timeout: 3s}\nprocessors: {batch: {<<: *x}}"), "processors::batch::timeout", "3s"},
		"an empty body is nothing":           {remote("", "# only a comment\n", "null", "{}", "a: 1\n---\n"), "processors::batch::timeout", "1s"},
		"references stay":                    {remote("exporters: {debug: {verbosity: \"${env:V}\"}}"), "exporters::debug::verbosity", "${env:V}"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := Merge(Input{Base: fromYAML(t, base), Remote: c.remote, ExtensionID: "opamp"})
			require.NoError(t, err)
			require.Equal(t, c.want, get(got, c.path))
			parent, key, found := cutLast(c.path)
			if c.want == nil && found {
				require.Contains(t, get(got, parent), key, "null stays, it does not vanish")
			}
		})
	}
}

func cutLast(path string) (parent, key string, found bool) {
	i := strings.LastIndex(path, "::")
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+2:], true
}

func TestLayersAreInOrder(t *testing.T) {
	t.Parallel()
	in := Input{
		Base:      map[string]any{"k": map[string]any{"base": 0, "telemetry": 0, "remote": 0, "connections": 0}},
		Telemetry: map[string]any{"k": map[string]any{"telemetry": 1, "remote": 1, "connections": 1}},
		Remote:    remote("k: {remote: 2, connections: 2}"),
		Connections: func(merged map[string]any) (map[string]any, error) {
			require.Equal(t, map[string]any{"base": 0, "telemetry": 1, "remote": 2, "connections": 2}, merged["k"])
			merged["k"] = "what is done to the argument has no effect"
			return map[string]any{"k": map[string]any{"connections": 3}}, nil
		},
	}
	got, err := Merge(in)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"k": map[string]any{"base": 0, "telemetry": 1, "remote": 2, "connections": 3}}, got)

	in.Connections = func(map[string]any) (map[string]any, error) { return nil, errors.New("no such exporter") }
	_, err = Merge(in)
	require.EqualError(t, err, "connection settings: no such exporter")
}

func TestReplaceTakesOnlyExtensionsOfBase(t *testing.T) {
	t.Parallel()
	got, err := Merge(Input{Base: fromYAML(t, base), Remote: remote("receivers: {nop: }"), Mode: ModeReplace, ExtensionID: "opamp"})
	require.NoError(t, err)
	want := fromYAML(t, base)
	require.Equal(t, map[string]any{
		"extensions": want["extensions"],
		"receivers":  map[string]any{"nop": nil},
		"service":    map[string]any{"extensions": []any{"opamp", "bearer", "health_check"}},
	}, got)
	_, err = Merge(Input{Mode: "add"})
	require.ErrorContains(t, err, `unknown mode "add"`)
}

// Whatever a server sends, the agent's own extension and what it needs stay as the base has them.
func TestGuard(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing":                 "",
		"null extension":          "extensions: {opamp: }",
		"other settings":          "extensions: {opamp: {server: {ws: {endpoint: 'ws://elsewhere'}}, added: 1}, bearer: {token: x}}",
		"a scalar":                "extensions: {opamp: x, bearer: '${env:X}'}",
		"null extensions":         "extensions:",
		"null service":            "service:",
		"null list":               "service: {extensions: }",
		"empty list":              "service: {extensions: []}",
		"joined keys":             "'extensions::opamp::server::ws::endpoint': 'ws://elsewhere'",
		"another spelling":        "extensions: {' opamp': {}, 'bearer ': {}}",
		"spelling in the list":    "service: {extensions: [' opamp', 'bearer ']}",
		"through a merge key":     "x: &x {opamp: {}}\nextensions: {<<: *x}",
		"everything is something": "extensions: {zpages: }\nservice: {extensions: [zpages]}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := fromYAML(t, base)
			for _, mode := range []Mode{ModeMerge, ModeReplace} {
				got, err := Merge(Input{Base: fromYAML(t, base), Remote: remote(body), Mode: mode, ExtensionID: "opamp", Keep: []string{"bearer"}})
				require.NoError(t, err)
				for _, id := range []string{"opamp", "bearer"} {
					require.Equal(t, get(want, "extensions::"+id), get(got, "extensions::"+id))
					require.Contains(t, get(got, "service::extensions"), id)
				}
				require.NotContains(t, get(got, "extensions"), " opamp")
				require.NotContains(t, get(got, "service::extensions"), " opamp")
			}
		})
	}
}

func TestGuardEntersAnExtensionThatTheListLacks(t *testing.T) {
	t.Parallel()
	got, err := Merge(Input{Base: map[string]any{"extensions": map[string]any{"opamp": nil}}, ExtensionID: "opamp"})
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"extensions": map[string]any{"opamp": nil},
		"service":    map[string]any{"extensions": []any{"opamp"}},
	}, got)
}

func TestWhatCannotBeMergedIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ base, remote, want string }{
		"a reference for all extensions": {base, "extensions: ${env:X}", `remote configuration "a": extensions is not a map written out in place`},
		"a list of extensions":           {base, "extensions: [opamp]", `extensions is not a map`},
		"a reference for the service":    {base, "service: ${file:x}", `remote configuration "a": service is not a map written out in place`},
		"a reference for the list":       {base, "service: {extensions: '${env:X}'}", `remote configuration "a": service::extensions is not a list`},
		"a string for the list":          {base, "service: {extensions: zpages}", `service::extensions is not a list`},
		"no id in the list":              {base, "service: {extensions: [{a: b}]}", `service::extensions::0 is not the id of an extension`},
		"null in the list":               {base, "service: {extensions: [zpages, ]}\n", ""},
		"base without the extension":     {"receivers: {nop: }", "", "base configuration: extensions::opamp is there 0 times"},
		"base with it twice":             {"extensions: {opamp: , 'opamp ': }", "", "base configuration: extensions::opamp is there 2 times"},
		"base with a reference":          {"extensions: ${file:x}", "", "base configuration: extensions is not a map"},
		"one key in two ways":            {base, "exporters: {debug: {verbosity: x}}\n'exporters::debug::verbosity': y", "set twice"},
		"a list for a map in two ways":   {base, "exporters: []\n'exporters::debug': y", "set twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Merge(Input{Base: fromYAML(t, c.base), Remote: remote(c.remote), ExtensionID: "opamp"})
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestNothingIsShared(t *testing.T) {
	t.Parallel()
	in := fromYAML(t, base)
	telemetry := map[string]any{"service": map[string]any{"telemetry": map[string]any{"metrics": map[string]any{"readers": []any{map[string]any{"pull": 1}}}}}}
	before, telemetryBefore := toYAML(t, in), toYAML(t, telemetry)
	got, err := Merge(Input{Base: in, Telemetry: telemetry, Remote: remote("exporters: {debug: {verbosity: x}}"), ExtensionID: "opamp"})
	require.NoError(t, err)
	spoil(got)
	require.Equal(t, before, toYAML(t, in))
	require.Equal(t, telemetryBefore, toYAML(t, telemetry))
}

// spoil changes everything in a value.
func spoil(value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, element := range v {
			spoil(element)
			delete(v, key)
		}
	case []any:
		for i, element := range v {
			spoil(element)
			v[i] = "spoilt"
		}
	}
}
