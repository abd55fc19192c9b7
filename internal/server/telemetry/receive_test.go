package telemetry

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

func packed(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// sample is a request of two points of agent a.
func sample(t testing.TB) (asProto, asJSON []byte) {
	t.Helper()
	request := pmetricotlp.NewExportRequestFromMetrics(metrics("a", point{spans, 300, after(30), start, false, ""}, point{queueSize, 5, after(30), start, false, ""}))
	asProto, err := request.MarshalProto()
	require.NoError(t, err)
	asJSON, err = request.MarshalJSON()
	require.NoError(t, err)
	return asProto, asJSON
}

func lookup(instance string) (string, bool) { return "uid of " + instance, instance == "a" }

func post(r *Recorder, method, contentType, encoding string, body io.Reader, uid string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "/v1/metrics", body)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", encoding)
	w := httptest.NewRecorder()
	r.Receive(w, req, uid, lookup)
	return w
}

func TestReceive(t *testing.T) {
	t.Parallel()
	asProto, asJSON := sample(t)
	for name, c := range map[string]struct {
		contentType, encoding string
		body                  []byte
		uid, want             string
	}{
		"protobuf":      {typeProtobuf, "", asProto, "b", "b"},
		"gzip":          {typeProtobuf, "gzip", packed(t, asProto), "", "uid of a"},
		"JSON":          {"application/json; charset=utf-8", "identity", asJSON, "", "uid of a"},
		"JSON and gzip": {typeJSON, "gzip", packed(t, asJSON), "b", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(Options{Now: func() time.Time { return after(31) }})
			w := post(r, "POST", c.contentType, c.encoding, bytes.NewReader(c.body), c.uid)
			require.Equal(t, http.StatusOK, w.Code)
			require.True(t, strings.HasPrefix(c.contentType, w.Header().Get("Content-Type")))
			response := pmetricotlp.NewExportResponse()
			if strings.HasPrefix(c.contentType, typeJSON) {
				require.NoError(t, response.UnmarshalJSON(w.Body.Bytes()))
			} else {
				require.NoError(t, response.UnmarshalProto(w.Body.Bytes()))
			}
			require.Zero(t, response.PartialSuccess().RejectedDataPoints())
			s, ok := r.Series(c.want, after(61))
			require.True(t, ok)
			require.InDelta(t, 10, *s.Accepted[points-2], 0.1)
			_, err := json.Marshal(s)
			require.NoError(t, err)
		})
	}
}

func TestUnknownAgents(t *testing.T) {
	t.Parallel()
	r := New(Options{})
	request := pmetricotlp.NewExportRequestFromMetrics(metrics("z", point{spans, 300, after(30), start, false, ""}))
	body, err := request.MarshalProto()
	require.NoError(t, err)
	w := post(r, "POST", typeProtobuf, "", bytes.NewReader(body), "")
	require.Equal(t, http.StatusOK, w.Code)
	response := pmetricotlp.NewExportResponse()
	require.NoError(t, response.UnmarshalProto(w.Body.Bytes()))
	require.EqualValues(t, 1, response.PartialSuccess().RejectedDataPoints())
	require.Contains(t, response.PartialSuccess().ErrorMessage(), "service.instance.id")
	require.EqualValues(t, 1, r.Totals().Unknown)
	require.Zero(t, r.Totals().Agents)
}

func TestFailures(t *testing.T) {
	t.Parallel()
	asProto, _ := sample(t)
	large := make([]byte, maxBody+1)
	for name, c := range map[string]struct {
		method, contentType, encoding string
		body                          []byte
		status, code                  int
	}{
		"method":          {"GET", typeProtobuf, "", nil, 405, 12},
		"content type":    {"POST", "text/plain", "", asProto, 415, 3},
		"no content type": {"POST", "", "", asProto, 415, 3},
		"encoding":        {"POST", typeProtobuf, "zstd", asProto, 415, 3},
		"no protobuf":     {"POST", typeProtobuf, "", []byte("hello \xff"), 400, 3},
		"no JSON":         {"POST", typeJSON, "", []byte("hello \xff"), 400, 3},
		"no gzip":         {"POST", typeProtobuf, "gzip", asProto, 400, 3},
		"cut gzip":        {"POST", typeProtobuf, "gzip", packed(t, asProto)[:30], 400, 3},
		"large":           {"POST", typeProtobuf, "", large, 413, 8},
		"large inside":    {"POST", typeProtobuf, "gzip", packed(t, large), 413, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(Options{})
			w := post(r, c.method, c.contentType, c.encoding, bytes.NewReader(c.body), "a")
			require.Equal(t, c.status, w.Code)
			var s status.Status
			if c.contentType == typeJSON {
				require.Equal(t, typeJSON, w.Header().Get("Content-Type"))
				require.NoError(t, protojson.Unmarshal(w.Body.Bytes(), &s))
			} else {
				require.Equal(t, typeProtobuf, w.Header().Get("Content-Type"))
				require.NoError(t, proto.Unmarshal(w.Body.Bytes(), &s))
			}
			require.EqualValues(t, c.code, s.Code)
			require.NotEmpty(t, s.Message)
			require.EqualValues(t, 1, r.Totals().Malformed)
			require.Zero(t, r.Totals().Agents)
		})
	}
}

// FuzzReceive: whatever comes in, twice, leaves a series that can be encoded, of numbers that make sense.
func FuzzReceive(f *testing.F) {
	asProto, asJSON := sample(f)
	now := func() time.Time { return after(31) }
	reached := New(Options{Now: now})
	require.Equal(f, http.StatusOK, post(reached, "POST", typeProtobuf, "", bytes.NewReader(asProto), "a").Code)
	require.Positive(f, reached.Totals().Accepted, "a seed reaches the ring")
	f.Add(false, asProto)
	f.Add(true, asJSON)
	f.Fuzz(func(t *testing.T, isJSON bool, body []byte) {
		r, contentType := New(Options{Now: now}), typeProtobuf
		if isJSON {
			contentType = typeJSON
		}
		for range 2 {
			code := post(r, "POST", contentType, "", bytes.NewReader(body), "a").Code
			require.Contains(t, []int{http.StatusOK, http.StatusBadRequest}, code)
		}
		s, ok := r.Series("a", after(61))
		if !ok {
			return
		}
		_, err := json.Marshal(s)
		require.NoError(t, err)
		for _, all := range [][]*float64{s.Accepted, s.Refused, s.Sent, s.Failed, s.Dropped, s.Queue} {
			require.Len(t, all, points)
			for _, v := range all {
				require.True(t, v == nil || *v >= 0 && !math.IsInf(*v, 0))
			}
		}
	})
}

// Large requests, of which a few would take all the memory there is, wait for each other.
func TestLargeRequestsTakeTurns(t *testing.T) {
	t.Parallel()
	r := New(Options{})
	for range turns {
		r.turns <- struct{}{}
	}
	asProto, _ := sample(t)
	require.Equal(t, http.StatusOK, post(r, http.MethodPost, typeProtobuf, "", bytes.NewReader(asProto), "u").Code, "small ones go on")
	answered := make(chan int)
	go func() {
		answered <- post(r, http.MethodPost, typeProtobuf, "", bytes.NewReader(make([]byte, large+1)), "u").Code
	}()
	select {
	case <-answered:
		require.Fail(t, "it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	<-r.turns
	require.Equal(t, http.StatusBadRequest, <-answered)
	require.Len(t, r.turns, turns-1, "it gave its turn back")
}
