package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// request is a request whose sender may make it.
type request struct {
	*http.Request
	// actor is who makes it: a token's id, or dev.
	actor string
	query url.Values
	// maxBody is in bytes.
	maxBody int64
	out     *http.ResponseController
}

const (
	maxLimit     = 1000
	defaultLimit = 100
	readTimeout  = time.Minute
)

// parseQuery refuses parameters that the route does not have, and those that are there twice.
func parseQuery(raw string, allowed []string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the query cannot be read: %s", err)
	}
	for name, all := range values {
		switch {
		case !slices.Contains(allowed, name) && len(allowed) == 0:
			return nil, refuse(http.StatusBadRequest, "unknown query parameter %.50q: there is none here", name)
		case !slices.Contains(allowed, name):
			return nil, refuse(http.StatusBadRequest, "unknown query parameter %.50q: there are %s", name, strings.Join(allowed, ", "))
		case len(all) > 1:
			return nil, refuse(http.StatusBadRequest, "query parameter %s is there twice", name)
		case !utf8.ValidString(all[0]):
			return nil, refuse(http.StatusBadRequest, "query parameter %s is not UTF-8", name)
		}
	}
	return values, nil
}

// number reads a parameter from low to high; absent is the fallback.
func (r *request) number(name string, low, high, fallback int64) (int64, error) {
	text := r.query.Get(name)
	if !r.query.Has(name) {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low || n > high {
		return 0, refuse(http.StatusBadRequest, "%s=%.50s: want a number from %d to %d", name, text, low, high)
	}
	return n, nil
}

func (r *request) limit() (int, error) {
	n, err := r.number("limit", 1, maxLimit, defaultLimit)
	return int(n), err
}

func (r *request) flag(name string) (bool, error) {
	switch text := r.query.Get(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, refuse(http.StatusBadRequest, "%s=%.50s: want true or false", name, text)
	}
}

// decode reads the body, an object of JSON, into document. Nothing in it may be unknown, doubtful, or lost.
func (r *request) decode(document any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "send the header Content-Type: application/json")
	}
	body, err := r.body()
	if err != nil {
		return err
	}
	if !utf8.Valid(body) || hasLoneSurrogate(body) {
		return refuse(http.StatusBadRequest, "the body is not UTF-8")
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return refuse(http.StatusBadRequest, "the body is not an object of JSON")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(document); err != nil {
		return invalidJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse(http.StatusBadRequest, "there is something after the JSON")
	}
	return nil
}

// body reads the body within its limits of size and time. The deadline is lifted again: it would end a handler that waits.
func (r *request) body() ([]byte, error) {
	_ = r.out.SetReadDeadline(time.Now().Add(readTimeout))
	body, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", large.Limit)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, "the body cannot be read")
	}
	_ = r.out.SetReadDeadline(time.Time{})
	return body, nil
}

func invalidJSON(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return refuse(http.StatusBadRequest, "field %.100q: a %s does not fit", wrongType.Field, wrongType.Value)
	case errors.As(err, &syntax):
		return refuse(http.StatusBadRequest, "the body is not JSON: %s at byte %d", syntax, syntax.Offset)
	default: // names the field that is unknown
		return refuse(http.StatusBadRequest, "the body: %.300s", strings.TrimPrefix(err.Error(), "json: "))
	}
}

// hasLoneSurrogate finds \uD800 to \uDFFF that are no pair: package json would put U+FFFD in their place.
func hasLoneSurrogate(body []byte) bool {
	unit := func(at int) (rune, bool) {
		if at+6 > len(body) || body[at] != '\\' || body[at+1] != 'u' {
			return 0, false
		}
		n, err := strconv.ParseUint(string(body[at+2:at+6]), 16, 16)
		return rune(n), err == nil && n>>11 == 0x1b
	}
	for at := 0; at < len(body); at++ {
		if body[at] != '\\' {
			continue
		}
		first, surrogate := unit(at)
		if !surrogate {
			at++ // what is escaped is no escape itself
			continue
		}
		second, paired := unit(at + 6)
		if !paired || first >= 0xdc00 || second < 0xdc00 {
			return true
		}
		at += 11
	}
	return false
}
