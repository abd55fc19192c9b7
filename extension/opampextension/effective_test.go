package opampextension

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"
)

func parseYAML(t testing.TB, text string) map[string]any {
	t.Helper()
	values := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(text), &values))
	return values
}

// redactYAML is effectiveConfig in YAML; raw is nil without an unexpanded configuration.
func redactYAML(t testing.TB, effective, unexpanded string) (content, raw []byte) {
	t.Helper()
	var source *confmap.Conf
	if unexpanded != "" {
		source = confmap.NewFromStringMap(parseYAML(t, unexpanded))
	}
	report, err := effectiveConfig(confmap.NewFromStringMap(parseYAML(t, effective)), source, true)
	require.NoError(t, err)
	files := report.ConfigMap.ConfigMap
	require.Equal(t, "text/yaml", files[""].ContentType)
	if source == nil {
		require.NotContains(t, files, "raw")
		return files[""].Body, nil
	}
	return files[""].Body, files["raw"].Body
}

func TestEffectiveConfig(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, effective, unexpanded, want string
	}{
		{"by the variable's name", "a: abcdefgh", "a: '${env:X_TOKEN}'", "a: '[REDACTED]'"},
		{"without scheme", "a: abcdefgh", "a: '${X_TOKEN}'", "a: '[REDACTED]'"},
		{"by the key's name", "password: abcdefgh", "password: '${env:X}'", "password: '[REDACTED]'"},
		{"short", "a: abc", "a: '${env:X_TOKEN}'", "a: '[REDACTED]'"},
		{"from a file", "a: abcdefgh", "a: '${file:/run/x}'", "a: '[REDACTED]'"},
		{"from a default", "a: abcdefgh", "a: '${env:X_TOKEN:-abcdefgh}'", "a: '[REDACTED]'"},
		{"part of a text", "a: https://h/abcdefgh", "a: 'https://h/${env:X_TOKEN}'", "a: '[REDACTED]'"},
		{
			"standing elsewhere", "{a: abcdefgh, b: see abcdefgh., c: [abcdefgh]}",
			"{a: '${env:X_TOKEN}', b: see abcdefgh., c: [abcdefgh]}",
			"{a: '[REDACTED]', b: 'see [REDACTED].', c: ['[REDACTED]']}",
		},
		{
			"part of a text standing elsewhere", "{a: Bearer abcdefgh, b: see abcdefgh.}", "{a: 'Bearer ${env:X_TOKEN}', b: see abcdefgh.}",
			"{a: '[REDACTED]', b: 'see [REDACTED].'}",
		},
		{
			"a secret within another", "{a: abcdef, b: abcdefgh, c: abcdefgh abcdef}", "{a: '${env:A_TOKEN}', b: '${env:B_TOKEN}', c: x}",
			"{a: '[REDACTED]', b: '[REDACTED]', c: '[REDACTED] [REDACTED]'}",
		},
		{"a short secret is not searched for", "{a: abc, b: abcdef}", "{a: '${env:X_TOKEN}', b: abcdef}", "{a: '[REDACTED]', b: abcdef}"},
		{"list", "a: [one, abcdefgh]", "a: [one, '${env:X_TOKEN}']", "a: [one, '[REDACTED]']"},
		{"list longer than its source", "a: [abcdefgh, two]", "a: ['${env:X_TOKEN}']", "a: ['[REDACTED]', two]"},
		{"list under a secret key", "tokens: [abc, def]", "", "tokens: ['[REDACTED]', '[REDACTED]']"},
		{"number", "{a: 12345678, b: 12345678}", "{a: '${env:X_TOKEN}', b: 12345678}", "{a: '[REDACTED]', b: '[REDACTED]'}"},
		{"boolean", "a: true", "a: '${env:X_TOKEN}'", "a: '[REDACTED]'"},
		{"null", "a: null", "a: '${env:X_TOKEN}'", "a: null"},
		{"resolved to a list", "{a: [abcdefgh], b: abcdefgh}", "{a: '${env:X_TOKENS}', b: abcdefgh}", "{a: ['[REDACTED]'], b: '[REDACTED]'}"},
		{"resolved to a map", "a: {b: {c: abc}}", "a: '${env:X_TOKENS}'", "a: {b: {c: '[REDACTED]'}}"},
		{"resolved to a map under a secret key", "credentials: {user: abc}", "credentials: '${env:X}'", "credentials: {user: '[REDACTED]'}"},
		{
			"a file that is a part of the configuration", "a: {endpoint: 'host:1', password: abc}", "a: '${file:a.yaml}'",
			"a: {endpoint: 'host:1', password: '[REDACTED]'}",
		},
		{"a file of secrets", "a: {b: abc}", "a: '${file:/run/secrets/a.yaml}'", "a: {b: '[REDACTED]'}"},
		{"password in a URL", "a: 'https://user:abc@host/path'", "", "a: 'https://user:[REDACTED]@host/path'"},
		{"encoded password in a URL", "a: 'https://user:a%40c@host/path'", "", "a: 'https://user:[REDACTED]@host/path'"},
		{"password in a URL in a text", "a: 'x postgres://user:a{b@host/path y'", "", "a: 'x postgres://user:[REDACTED]@host/path y'"},
		{"password in a second URL", "a: 'http://a:80,http://user:abc@b:80'", "", "a: 'http://a:80,http://user:[REDACTED]@b:80'"},
		{"user in a URL", "a: 'https://user@host:80/path'", "", "a: 'https://user@host:80/path'"},
		{"literal under a secret key", "{api_key: abc, Authorization: abc}", "", "{api_key: '[REDACTED]', Authorization: '[REDACTED]'}"},
		{"literal with a dollar", "{password: 'a$bcd', secret: 'a${b}'}", "", "{password: '[REDACTED]', secret: '[REDACTED]'}"},
		{"literal number under a secret key", "password: 12345678", "", "password: '[REDACTED]'"},
		{"limit under a secret-looking key", "{max_tokens: 100, use_token: true}", "", "{max_tokens: 100, use_token: true}"},
		{"not a secret", "{token_file: /a, token_url: 'http://a', token_ttl: 1h}", "", "{token_file: /a, token_url: 'http://a', token_ttl: 1h}"},
		{"empty", "password: ''", "", "password: ''"},
		{"redacted already", "{token: '[REDACTED]', a: '[REDACTED]'}", "{token: '${env:X_TOKEN}', a: '[REDACTED]'}", "{token: '[REDACTED]', a: '[REDACTED]'}"},
		{"ordinary variable", "a: 'host:4317'", "a: '${env:HOST}:4317'", "a: 'host:4317'"},
		{"ordinary variable from elsewhere", "a: {b: 1, c: [true, 1.5]}", "a: '${env:SETTINGS}'", "a: {b: 1, c: [true, 1.5]}"},
		{"other shape than its source", "a: {b: c}", "a: [b]", "a: {b: c}"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			content, _ := redactYAML(t, tt.effective, tt.unexpanded)
			require.Equal(t, parseYAML(t, tt.want), parseYAML(t, string(content)))
			for range 10 { // maps are walked in another order each time
				again, _ := redactYAML(t, tt.effective, tt.unexpanded)
				require.Equal(t, string(content), string(again))
			}
		})
	}
}

func TestEffectiveConfigRaw(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, effective, unexpanded, want string
	}{
		{"reference", "a: abcdefgh", "a: '${env:X_TOKEN}'", "a: '${env:X_TOKEN}'"},
		{"reference under a secret key", "password: abc", "password: '${env:X}'", "password: '${env:X}'"},
		{"scheme beside a reference", "authorization: Bearer abc", "authorization: 'Bearer ${env:X}'", "authorization: 'Bearer ${env:X}'"},
		{"text beside a reference", "password: abc-1", "password: 'abc-${env:X}'", "password: '[REDACTED]${env:X}'"},
		{"default", "a: abc", "a: '${env:X_TOKEN:-abc}'", "a: '${env:X_TOKEN:-[REDACTED]}'"},
		{"default of a host", "a: localhost", "a: '${env:HOST:-localhost}'", "a: '${env:HOST:-localhost}'"},
		{"literal", "password: abc", "password: abc", "password: '[REDACTED]'"},
		{"literal with a dollar", "password: a$bcd", "password: a$$bcd", "password: '[REDACTED]'"},
		{"value standing elsewhere", "{a: abcdefgh, b: abcdefgh}", "{a: '${env:X_TOKEN}', b: abcdefgh}", "{a: '${env:X_TOKEN}', b: '[REDACTED]'}"},
		{"reference in a URL", "a: 'http://u:abc@h'", "a: 'http://u:${env:X_TOKEN}@h'", "a: 'http://u:${env:X_TOKEN}@h'"},
		{"password in a URL", "a: 'http://u:abc@h'", "a: 'http://u:abc@h'", "a: 'http://u:[REDACTED]@h'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, raw := redactYAML(t, tt.effective, tt.unexpanded)
			require.Equal(t, parseYAML(t, tt.want), parseYAML(t, string(raw)))
		})
	}
	report, err := effectiveConfig(confmap.New(), confmap.New(), false)
	require.NoError(t, err)
	require.NotContains(t, report.ConfigMap.ConfigMap, "raw", "only on demand")
}

// fuzzConfig stands everywhere a secret may: alone, in a text, in lists, maps, URLs, under ordinary keys.
func fuzzConfig(secret, reference string) map[string]any {
	return map[string]any{
		"whole": reference,
		"text":  map[string]any{"inner": "Bearer " + reference},
		"list":  []any{"ordinary", reference},
		"url":   "https://user:" + reference + "@host/",
		"other": []any{secret, map[string]any{"note": "see " + secret + "."}, 1, true},
	}
}

// FuzzRedact: the value of a secret variable appears nowhere in the decoded report.
func FuzzRedact(f *testing.F) {
	seeds := []string{"hunter2hunter2", "a\nb: c\n", "******", `"quoted"`, "p@ss/w:rd", "user:x@", "$1${env:X}", "\xff\xfe\xfd\xfc\xfb\xfa", "  tab\t", "ordinary"}
	for _, seed := range seeds {
		require.True(f, fuzzable(seed), "the seed %q does not reach the property", seed)
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		if !fuzzable(secret) {
			return
		}
		report, err := effectiveConfig(confmap.NewFromStringMap(fuzzConfig(secret, secret)),
			confmap.NewFromStringMap(fuzzConfig(secret, "${env:X_TOKEN}")), true)
		require.NoError(t, err)
		for name, file := range report.ConfigMap.ConfigMap {
			var decoded any
			require.NoError(t, yaml.Unmarshal(file.Body, &decoded), "%q: %s", name, file.Body)
			walk(decoded, func(text string) { require.NotContains(t, text, secret, "%q: %s", name, file.Body) })
		}
	})
}

// fuzzable leaves out what is too short to be searched for, and what the report's own marks and references contain.
func fuzzable(secret string) bool {
	return len(secret) >= minSecret && !strings.ContainsAny(secret, "[]") && !strings.Contains(redacted, secret) &&
		!strings.Contains("Bearer ${env:X_TOKEN} https://user:${env:X_TOKEN}@host/", secret)
}

// walk visits the values; keys are no secrets.
func walk(value any, visit func(string)) {
	switch v := value.(type) {
	case map[string]any:
		for _, element := range v {
			walk(element, visit)
		}
	case []any:
		for _, element := range v {
			walk(element, visit)
		}
	case string:
		visit(v)
	}
}
