package store

import (
	"fmt"
	"reflect"
	"time"
	"unicode/utf8"
)

// CheckTexts returns ErrInvalid if any string in the values, however deep, is not UTF-8. Implementations call it before they
// write, since JSON would replace such bytes silently. Byte slices are not texts.
func CheckTexts(values ...any) error {
	for _, v := range values {
		if bad, found := badText(reflect.ValueOf(v)); found {
			return fmt.Errorf("%.100q is not UTF-8: %w", bad, ErrInvalid)
		}
	}
	return nil
}

func badText(v reflect.Value) (string, bool) {
	switch v.Kind() {
	case reflect.String:
		return v.String(), !utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return badText(v.Elem())
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() { // the names in its time zone are not stored, and package time may be loading them
			return "", false
		}
		for i := range v.NumField() {
			if bad, found := badText(v.Field(i)); found {
				return bad, true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return "", false
		}
		for i := range v.Len() {
			if bad, found := badText(v.Index(i)); found {
				return bad, true
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if bad, found := badText(entries.Key()); found {
				return bad, true
			}
			if bad, found := badText(entries.Value()); found {
				return bad, true
			}
		}
	default:
	}
	return "", false
}
