package fleet

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSelectorMatches(t *testing.T) {
	t.Parallel()
	attributes := map[string]string{"service.name": "otelcol-collie", "app.kubernetes.io/part-of": "a b, c", "env": "prod", "empty": "", "q": `say "x" \ y`, "url": "http://h/?a=b"}
	for text, want := range map[string]bool{
		"": true, "  ": true,
		"env=prod": true, "env==prod": true, " env = prod ": true, "env=stage": false, "absent=x": false,
		"env!=prod": false, "env!=stage": true, "absent!=x": true,
		"env in (prod,stage)": true, "env in ( stage , dev )": false, "absent in (x)": false, "env in(prod)": true,
		"env notin (prod)": false, "env notin (stage)": true, "absent notin (x)": true,
		"env": true, "absent": false, "!env": false, "!absent": true, "! absent": true,
		"env=prod,!absent": true, "env=prod,absent": false, "env,service.name=otelcol-collie": true,
		`app.kubernetes.io/part-of="a b, c"`: true, `app.kubernetes.io/part-of in ("a b, c", z)`: true,
		"empty=": true, `empty=""`: true, "env=": false, `q="say \"x\" \\ y"`: true, "url=http://h/?a=b": true,
		"service.name=otelcol-collie,env in (prod,stage),!legacy": true,
	} {
		s, err := ParseSelector(text)
		require.NoError(t, err, text)
		require.Equal(t, want, s.Matches(attributes), text)
		again, err := ParseSelector(s.String())
		require.NoError(t, err, s.String())
		require.Equal(t, s, again)
	}
}

func TestSelectorErrorsPointAtThePlace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a=b,":                    "selector: expected the key of an attribute at its end (character 5)",
		",a":                      `selector: expected the key of an attribute at character 1, before ",a"`,
		"a b":                     `selector: expected one of =, ==, !=, in, notin, or a comma at character 3, before "b"`,
		"a in b":                  `selector: expected a parenthesis with values at character 6, before "b"`,
		"a in ()":                 `selector: expected a value at character 7, before ")"`,
		"a in (b":                 "selector: expected a comma or a closing parenthesis at its end (character 8)",
		"a in (b,)":               `selector: expected a value at character 9, before ")"`,
		`ä="b`:                    `selector: the quotes are not closed at character 3, before "\"b"`,
		`a="b"c`:                  `selector: expected a comma at character 6, before "c"`,
		`a="\n"`:                  `selector: expected \" or \\ at character 4, before "\\n\""`,
		"a=f(x)":                  `selector: a value with quotes or parentheses must stand in double quotes at character 4, before "(x)"`,
		"!":                       "selector: expected the key of an attribute at its end (character 2)",
		"!a=b":                    `selector: expected a comma at character 3, before "=b"`,
		"a=\xff":                  `selector: invalid UTF-8 at character 3, before "\xff"`,
		strings.Repeat("a,", 65):  "more than 64 terms",
		strings.Repeat("a", 5000): "longer than 4096 bytes",
	} {
		_, err := ParseSelector(text)
		require.ErrorContains(t, err, want, text)
		var typed *SelectorError
		require.True(t, errors.As(err, &typed))
	}
}

func FuzzSelector(f *testing.F) {
	for _, seed := range []string{"", "a=b", "a in (x,y),!c", `a="x,\"\\"`, "a notin (b),c==d", "a=\xff", "in in (in)", "a= b c ", "\u00a0a=\u00a0b", `a="` + strings.Repeat(`\"`, 1000) + `"`} {
		f.Add(seed, "a", "b")
	}
	f.Fuzz(func(t *testing.T, text, key, value string) {
		s, err := ParseSelector(text)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		again, err := ParseSelector(s.String())
		require.NoError(t, err, "%q came to %q", text, s.String())
		require.Equal(t, s.String(), again.String())
		attributes := map[string]string{key: value}
		for _, r := range s.requirements {
			require.Equal(t, s.Matches(attributes), again.Matches(attributes))
			for _, v := range append(r.values, value) {
				attributes[r.key] = v
				require.Equal(t, s.Matches(attributes), again.Matches(attributes))
			}
		}
	})
}
