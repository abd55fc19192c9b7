package opampextension

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
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
	// reference is a value that comes from elsewhere, such as ${env:NAME:-default} or ${file:/run/secrets/x}.
	reference = regexp.MustCompile(`\$\{([^}]*)\}`)
	// notSecret are names that look like secrets and are none.
	notSecret = regexp.MustCompile(`(?i)_file$|_path$|_url$|token_?ttl`)
	// userinfo is the password of a URL, decoded or not, wherever the URL stands.
	userinfo = regexp.MustCompile(`(://[^\s/:@]*:)([^\s/]+)@`)
	// authScheme is what may stand beside a reference to a secret and is none itself.
	authScheme = regexp.MustCompile(`(?i)^\s*(bearer|basic|token|apikey)?\s*$`)
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
	r.sort()
	content, err := yaml.Marshal(r.redact("", source, effective.ToStringMap()))
	if err != nil {
		return nil, fmt.Errorf("encode the effective configuration: %w", err)
	}
	files := map[string]*protobufs.AgentConfigFile{"": {Body: content, ContentType: yamlType}}
	if raw && source != nil {
		r.raw = true
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
	// raw says that values are unexpanded: references stay.
	raw bool
	// secrets are resolved values of secret references: they are taken out wherever they stand.
	secrets []string
}

// minSecret is the length from which on a secret is searched for in other values: shorter ones would hit by chance.
const minSecret = 6

// collect walks both forms and remembers the values that came from secret references.
func (r *redactor) collect(key string, source, value any) {
	from, isText := source.(string)
	switch v := value.(type) {
	case map[string]any:
		s, _ := source.(map[string]any)
		for k, element := range v {
			r.collect(k, inherit(key, source, s[k]), element)
		}
	case []any:
		s, _ := source.([]any)
		for i, element := range v {
			r.collect(key, inherit(key, source, at(s, i)), element)
		}
	default:
		if isText && value != nil && isSecret(key, from) {
			text := fmt.Sprint(value)
			r.remember(text)
			r.rememberParts(key, from, text)
		}
	}
}

// inherit is the source of an element: where a secret reference was resolved to a map or a list, each element came from it.
// A file is one only if it is called so, for files also hold whole parts of a configuration.
func inherit(key string, source, element any) any {
	if s, ok := source.(string); ok && isSecretName(key, s) {
		return inheritedSecret
	}
	return element
}

// inheritedSecret is a reference that is a secret under every key.
const inheritedSecret = "${env:SECRET}"

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

func (r *redactor) remember(secret string) {
	if len(secret) >= minSecret && secret != redacted {
		r.secrets = append(r.secrets, secret)
	}
}

// rememberParts finds what each reference of a text such as "Bearer ${env:TOKEN}" was resolved to.
func (r *redactor) rememberParts(key, source, value string) {
	// Of several references the bounds may not be clear: take both the longest and the shortest.
	for _, group := range []string{"(.*)", "(.*?)"} {
		r.rememberGroups(key, source, value, group)
	}
}

func (r *redactor) rememberGroups(key, source, value, group string) {
	refs := reference.FindAllStringIndex(source, -1)
	pattern, end := strings.Builder{}, 0
	pattern.WriteString(`(?s)^`)
	for _, ref := range refs {
		pattern.WriteString(regexp.QuoteMeta(unescape(source[end:ref[0]])) + group)
		end = ref[1]
	}
	pattern.WriteString(regexp.QuoteMeta(unescape(source[end:])) + "$")
	re, err := regexp.Compile(pattern.String())
	if err != nil {
		return
	}
	parts := re.FindStringSubmatch(value)
	if parts == nil {
		return
	}
	for i, ref := range refs {
		if isSecret(key, source[ref[0]:ref[1]]) {
			r.remember(parts[i+1])
		}
	}
}

// unescape does what the Collector does with a dollar that begins no reference.
func unescape(text string) string { return strings.ReplaceAll(text, "$$", "$") }

// sort puts longer secrets first: one that contains another must not leave its rest.
func (r *redactor) sort() {
	slices.SortFunc(r.secrets, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	r.secrets = slices.Compact(r.secrets)
}

// isSecret says whether a value with references is one: by the name of the key, or by that of what it refers to.
func isSecret(key, source string) bool {
	for _, m := range reference.FindAllStringSubmatch(source, -1) {
		if strings.HasPrefix(m[1], "file:") {
			return true
		}
	}
	return isSecretName(key, source)
}

func isSecretName(key, source string) bool {
	for _, m := range reference.FindAllStringSubmatch(source, -1) {
		name, _, _ := strings.Cut(m[1], ":-")
		if looksSecret(strings.TrimPrefix(name, "env:")) || looksSecret(key) {
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
			out[k] = r.redact(k, inherit(key, source, s[k]), element)
		}
		return out
	case []any:
		s, _ := source.([]any)
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = r.redact(key, inherit(key, source, at(s, i)), element)
		}
		return out
	case string:
		return r.redactString(key, source, v)
	case nil:
		return nil
	default:
		text := fmt.Sprint(value)
		if s, ok := source.(string); ok && isSecret(key, s) || slices.Contains(r.secrets, text) {
			return redacted
		}
		if _, isBool := value.(bool); !isBool && looksSecret(key) && len(text) >= minSecret {
			return redacted // a password of digits; short numbers are sizes and limits, such as max_tokens
		}
		return value
	}
}

func (r *redactor) redactString(key string, source any, value string) string {
	if s, ok := source.(string); ok && isSecret(key, s) {
		return redacted
	}
	if r.raw && reference.MatchString(value) {
		value = redactAround(key, value)
	} else if looksSecret(key) && value != "" {
		return redacted // a literal under the name of a secret
	}
	for _, secret := range r.secrets {
		value = strings.ReplaceAll(value, secret, redacted)
	}
	return userinfo.ReplaceAllStringFunc(value, func(found string) string {
		m := userinfo.FindStringSubmatch(found)
		if r.raw && strings.HasPrefix(m[2], "${") && strings.HasSuffix(m[2], "}") {
			return found
		}
		return m[1] + redacted + "@"
	})
}

// redactAround keeps the references of an unexpanded value, but neither the default of a secret nor literal text
// beside a reference under the name of a secret.
func redactAround(key, value string) string {
	out, end := strings.Builder{}, 0
	literal := func(text string) {
		if looksSecret(key) && !authScheme.MatchString(text) {
			text = redacted
		}
		out.WriteString(text)
	}
	for _, ref := range reference.FindAllStringIndex(value, -1) {
		literal(value[end:ref[0]])
		text := value[ref[0]:ref[1]]
		if name, _, hasDefault := strings.Cut(text, ":-"); hasDefault && isSecretName(key, text) {
			text = name + ":-" + redacted + "}"
		}
		out.WriteString(text)
		end = ref[1]
	}
	literal(value[end:])
	return out.String()
}
