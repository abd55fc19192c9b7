package opampextension

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/open-telemetry/opamp-go/protobufs"
	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"
)

const (
	redacted = "[REDACTED]"
	yamlType = "text/yaml"
)

var (
	// secretName is what keys and variables are called that hold secrets.
	secretName = regexp.MustCompile(`(?i)token|secret|passw|pwd|api_?-?key|access_?-?key|private_?-?key|encryption_?-?key|credential|authorization|bearer|cookie|dsn|connection_?string`)
	// reference is a value that comes from elsewhere, such as ${env:NAME} or ${file:/run/secrets/x}.
	reference = regexp.MustCompile(`\$\{([^}]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)`)
	// notSecret are names that look like secrets and are none.
	notSecret = regexp.MustCompile(`(?i)_file$|_path$|_url$|token_?ttl`)
)

// effectiveConfig makes the report of a configuration. unexpanded is the same one before references were resolved; it tells
// which values came from a secret. raw adds it under the key "raw".
func effectiveConfig(effective, unexpanded *confmap.Conf, raw bool) (*protobufs.EffectiveConfig, error) {
	var source map[string]any
	if unexpanded != nil {
		source = unexpanded.ToStringMap()
	}
	r := redactor{}
	r.collect("", source, effective.ToStringMap())
	content, err := yaml.Marshal(r.redact("", source, effective.ToStringMap()))
	if err != nil {
		return nil, fmt.Errorf("encode the effective configuration: %w", err)
	}
	files := map[string]*protobufs.AgentConfigFile{"": {Body: content, ContentType: yamlType}}
	if raw && source != nil {
		content, err := yaml.Marshal(r.redact("", nil, source))
		if err != nil {
			return nil, fmt.Errorf("encode the raw configuration: %w", err)
		}
		files["raw"] = &protobufs.AgentConfigFile{Body: content, ContentType: yamlType}
	}
	return &protobufs.EffectiveConfig{ConfigMap: &protobufs.AgentConfigMap{ConfigMap: files}}, nil
}

// redactor takes secrets out. Values typed as opaque are redacted by the Collector already.
type redactor struct {
	// secrets are resolved values of secret references: they are taken out wherever they stand.
	secrets []string
}

// minSecret is the length from which on a secret is searched for in other values: shorter ones would hit by chance.
const minSecret = 6

// collect walks both forms and remembers the values that came from secret references.
func (r *redactor) collect(key string, source, value any) {
	switch v := value.(type) {
	case map[string]any:
		s, _ := source.(map[string]any)
		for k, element := range v {
			r.collect(k, s[k], element)
		}
	case []any:
		s, _ := source.([]any)
		for i, element := range v {
			if i < len(s) {
				r.collect(key, s[i], element)
			}
		}
	case string:
		if s, ok := source.(string); ok && isSecret(key, s) && len(v) >= minSecret && v != redacted {
			r.secrets = append(r.secrets, v)
		}
	}
}

// isSecret says whether a value with references is one: by the name of the key, or by that of what it refers to.
func isSecret(key, source string) bool {
	for _, m := range reference.FindAllStringSubmatch(source, -1) {
		name, _, _ := strings.Cut(m[1]+m[2], ":-")
		if strings.HasPrefix(name, "file:") || looksSecret(strings.TrimPrefix(name, "env:")) || looksSecret(key) {
			return true
		}
	}
	return false
}

func looksSecret(name string) bool {
	return secretName.MatchString(name) && !notSecret.MatchString(name)
}

func (r *redactor) redact(key string, source, value any) any {
	switch v := value.(type) {
	case map[string]any:
		s, _ := source.(map[string]any)
		out := make(map[string]any, len(v))
		for k, element := range v {
			out[k] = r.redact(k, s[k], element)
		}
		return out
	case []any:
		s, _ := source.([]any)
		out := make([]any, len(v))
		for i, element := range v {
			var from any
			if i < len(s) {
				from = s[i]
			}
			out[i] = r.redact(key, from, element)
		}
		return out
	case string:
		return r.redactString(key, source, v)
	default:
		if s, ok := source.(string); ok && isSecret(key, s) && value != nil {
			return redacted
		}
		return value
	}
}

func (r *redactor) redactString(key string, source any, value string) string {
	if s, ok := source.(string); ok && isSecret(key, s) {
		return redacted
	}
	if looksSecret(key) && value != "" && !reference.MatchString(value) {
		return redacted // a literal under the name of a secret
	}
	for _, secret := range r.secrets {
		value = strings.ReplaceAll(value, secret, redacted)
	}
	if u, err := url.Parse(value); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok && password != "" {
			value = strings.Replace(value, ":"+password+"@", ":"+redacted+"@", 1)
		}
	}
	return value
}
