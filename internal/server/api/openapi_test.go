package api

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/collie-otel/collie/internal/apiv1"
)

type schema struct {
	Ref                  string `yaml:"$ref"`
	Type                 any
	Required             []string
	Properties           map[string]schema
	Items                *schema
	AdditionalProperties *schema `yaml:"additionalProperties"`
}

type parameter struct {
	Ref  string `yaml:"$ref"`
	Name string
	In   string
}

type operation struct {
	OperationID string `yaml:"operationId"`
	Role        string `yaml:"x-role"`
	Parameters  []parameter
	RequestBody any `yaml:"requestBody"`
	Responses   map[string]any
}

type openAPIDocument struct {
	OpenAPI    string
	Paths      map[string]map[string]operation
	Components struct {
		Parameters map[string]parameter
		Responses  map[string]any
		Schemas    map[string]schema
	}
}

func readDocument(t *testing.T) openAPIDocument {
	t.Helper()
	var d openAPIDocument
	require.NoError(t, yaml.Unmarshal(document, &d))
	require.Equal(t, "3.1.0", d.OpenAPI)
	return d
}

func TestDocumentHasTheRoutes(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	ids := map[string]bool{}
	described := map[string]string{}
	for path, operations := range d.Paths {
		for method, o := range operations {
			described[strings.ToUpper(method)+" "+path] = o.Role
			require.False(t, ids[o.OperationID], o.OperationID)
			ids[o.OperationID] = true
			require.Contains(t, o.Responses, "default")
		}
	}
	served := map[string]string{}
	for _, route := range newDev(t).routes {
		served[route.method+" "+route.path] = route.role
		o := d.Paths[route.path][strings.ToLower(route.method)]
		names := map[string][]string{}
		for _, p := range o.Parameters {
			key := strings.TrimPrefix(p.Ref, "#/components/parameters/")
			require.Contains(t, d.Components.Parameters, key)
			p = d.Components.Parameters[key]
			names[p.In] = append(names[p.In], p.Name)
		}
		require.ElementsMatch(t, route.query, names["query"], "%s %s", route.method, route.path)
		var wildcards []string
		for _, m := range regexp.MustCompile(`{(\w+)}`).FindAllStringSubmatch(route.path, -1) {
			wildcards = append(wildcards, m[1])
		}
		require.ElementsMatch(t, wildcards, names["path"], "%s %s", route.method, route.path)
	}
	require.Equal(t, served, described)
}

func TestDocumentHasTheTypes(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	types := map[string]reflect.Type{}
	for _, document := range []any{
		apiv1.Agents{},
		apiv1.DesiredConfig{},
		apiv1.Events{},
		apiv1.Components{},
		apiv1.Series{},
		apiv1.Configurations{},
		apiv1.SaveConfiguration{},
		apiv1.Versions{},
		apiv1.PlanRequest{},
		apiv1.Plan{},
		apiv1.RolloutRequest{},
		apiv1.Rollouts{},
		apiv1.TokenRequest{},
		apiv1.Tokens{},
		apiv1.Problem{},
		apiv1.Connections{},
		apiv1.Packages{},
	} {
		gather(reflect.TypeOf(document), types)
	}
	delete(types, "ConnectionOffer") // embedded
	for name, of := range types {
		s, found := d.Components.Schemas[name]
		require.True(t, found, name)
		fields, required := map[string]reflect.Type{}, []string{}
		fieldsOf(of, fields, &required)
		require.ElementsMatch(t, slices.Collect(maps.Keys(fields)), slices.Collect(maps.Keys(s.Properties)), name)
		if !slices.Contains([]string{"SaveConfiguration", "Connection", "PackageOffer"}, name) { // what is sent may leave out more
			require.ElementsMatch(t, required, s.Required, name)
		}
		for field, kind := range fields {
			checkKind(t, name+"."+field, kind, s.Properties[field], &d)
		}
	}
	for name := range d.Components.Schemas {
		if !slices.Contains([]string{"State", "Status", "Change"}, name) {
			require.Contains(t, types, name, "nothing is like that")
		}
	}
}

func gather(of reflect.Type, types map[string]reflect.Type) {
	switch of.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		gather(of.Elem(), types)
	case reflect.Struct:
		if !strings.HasSuffix(of.PkgPath(), "/apiv1") || types[of.Name()] != nil {
			return
		}
		types[of.Name()] = of
		for i := range of.NumField() {
			gather(of.Field(i).Type, types)
		}
	default:
	}
}

func fieldsOf(of reflect.Type, fields map[string]reflect.Type, required *[]string) {
	for i := range of.NumField() {
		f := of.Field(i)
		if f.Anonymous {
			fieldsOf(f.Type, fields, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
		if options == "" {
			*required = append(*required, name)
		}
	}
}

// checkKind compares the type of a field with what the document says of it.
func checkKind(t *testing.T, name string, of reflect.Type, s schema, d *openAPIDocument) {
	t.Helper()
	if s.Ref != "" {
		target := strings.TrimPrefix(s.Ref, "#/components/schemas/")
		require.Contains(t, d.Components.Schemas, target, name)
		for of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		require.True(t, of.Name() == target || of.Kind() == reflect.String, "%s: %s is no %s", name, of, target)
		return
	}
	if of.String() == "json.RawMessage" {
		return
	}
	if of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	want := map[reflect.Kind]string{
		reflect.String: "string", reflect.Int: "integer", reflect.Int64: "integer", reflect.Float64: "number", reflect.Bool: "boolean",
		reflect.Slice: "array", reflect.Map: "object", reflect.Struct: "string",
	}[of.Kind()]
	got := s.Type
	if several, ok := got.([]any); ok {
		got = several[0]
	}
	require.Equal(t, want, got, name)
	switch of.Kind() {
	case reflect.Slice:
		checkKind(t, name, of.Elem(), *s.Items, d)
	case reflect.Map:
		checkKind(t, name, of.Elem(), *s.AdditionalProperties, d)
	default:
	}
}
