package traffic

import (
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// attributeTable counts the values of attributes: at most 64 keys and 16 values a key, the rest under "(other)".
type attributeTable struct {
	keys map[string]*attributeValues
}

// attributeValues counts one key. Integers are kept apart from strings so that counting one makes no string.
type attributeValues struct {
	strings map[string]*valueCount
	ints    map[int64]*int64
	other   int64
	last    *valueCount // the string counted last: neighbours are often equal
}

type valueCount struct {
	value string // a copy: the request's memory is not kept
	n     int64
}

func (t *attributeTable) add(key string, value pcommon.Value, n int64) {
	values := t.keys[key]
	if values == nil {
		values = t.addKey(key)
	}
	switch value.Type() {
	case pcommon.ValueTypeStr:
		values.addString(value.Str(), n)
	case pcommon.ValueTypeInt:
		values.addInt(value.Int(), n)
	default:
		values.addString(value.AsString(), n)
	}
}

// addKey also serves a key beyond the bound: the values of all of those are counted under the key "(other)".
func (t *attributeTable) addKey(key string) *attributeValues {
	if t.keys == nil {
		t.keys = map[string]*attributeValues{}
	}
	if len(t.keys) >= maxAttributes {
		key = otherName
		if values := t.keys[key]; values != nil {
			return values
		}
	}
	values := &attributeValues{strings: map[string]*valueCount{}, ints: map[int64]*int64{}}
	t.keys[strings.Clone(key)] = values
	return values
}

func (v *attributeValues) addString(s string, n int64) {
	if v.last != nil && v.last.value == s {
		v.last.n += n
		return
	}
	count := v.strings[s]
	if count == nil {
		if v.full() {
			v.other += n
			return
		}
		count = &valueCount{value: strings.Clone(s)}
		v.strings[count.value] = count
	}
	count.n += n
	v.last = count
}

func (v *attributeValues) addInt(i, n int64) {
	count := v.ints[i]
	if count == nil {
		if v.full() {
			v.other += n
			return
		}
		count = new(int64)
		v.ints[i] = count
	}
	*count += n
}

func (v *attributeValues) full() bool { return len(v.strings)+len(v.ints) >= maxAttributeValues }

func (t *attributeTable) summary() map[string]map[string]int64 {
	out := make(map[string]map[string]int64, len(t.keys))
	for key, values := range t.keys {
		counts := make(map[string]int64, len(values.strings)+len(values.ints)+1)
		for value, count := range values.strings {
			counts[value] += count.n
		}
		for value, count := range values.ints {
			counts[strconv.FormatInt(value, 10)] += *count
		}
		if values.other > 0 {
			counts[otherName] += values.other
		}
		out[key] = counts
	}
	return out
}
