package telemetry

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	// maxBody is in bytes, after decompression and before.
	maxBody = 4 << 20
	// large bodies are decoded few at a time: decoded they can be 150 times as large.
	large = 64 << 10
	turns = 2
)

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

// failure is an answer other than 200.
type failure struct {
	status  int
	code    codes.Code
	message string
}

func (f *failure) Error() string { return f.message }

var errTooLarge = &failure{http.StatusRequestEntityTooLarge, codes.ResourceExhausted, fmt.Sprintf("the request is too large: want at most %d bytes after decompression", maxBody)}

// Receive answers POST of an ExportMetricsServiceRequest (OTLP specification, "OTLP/HTTP Request"). All of it is uid's; with an
// empty uid each resource is of the agent that lookup finds by its service.instance.id. What is of nobody known, or of more agents
// than are kept, is rejected as a partial success: the sender need not try again.
func (r *Recorder) Receive(w http.ResponseWriter, req *http.Request, uid string, lookup func(instanceID string) (uid string, ok bool)) {
	contentType, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	request, done, err := r.decode(w, req, contentType)
	defer done()
	if err != nil {
		r.malformed()
		refuse(w, contentType, err)
		return
	}
	collected := collect(request.Metrics())
	unknown, surplus := r.record(collected, owners(collected, uid, lookup))
	response := pmetricotlp.NewExportResponse()
	if unknown+surplus > 0 {
		response.PartialSuccess().SetRejectedDataPoints(unknown + surplus)
		response.PartialSuccess().SetErrorMessage(fmt.Sprintf(
			"%d data points are of agents that this server does not know by their service.instance.id, %d of more agents than it keeps", unknown, surplus))
	}
	marshal := response.MarshalProto
	if contentType == typeJSON {
		marshal = response.MarshalJSON
	}
	body, err := marshal()
	if err != nil {
		refuse(w, contentType, err)
		return
	}
	write(w, contentType, http.StatusOK, body)
}

// owners are the UIDs of the collections' agents, empty where nobody knows.
func owners(collected []collection, uid string, lookup func(string) (string, bool)) []string {
	uids := make([]string, len(collected))
	for i := range collected {
		if uids[i] = uid; uid != "" || lookup == nil || collected[i].instance == "" {
			continue
		}
		if found, ok := lookup(collected[i].instance); ok {
			uids[i] = found
		}
	}
	return uids
}

// decode reads a request. Done gives back the turn of a large one.
func (r *Recorder) decode(w http.ResponseWriter, req *http.Request, contentType string) (request pmetricotlp.ExportRequest, done func(), err error) {
	request, done = pmetricotlp.NewExportRequest(), func() {}
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return request, done, &failure{http.StatusMethodNotAllowed, codes.Unimplemented, "use POST"}
	}
	unmarshal := request.UnmarshalProto
	switch contentType {
	case typeProtobuf:
	case typeJSON:
		unmarshal = request.UnmarshalJSON
	default:
		return request, done, &failure{http.StatusUnsupportedMediaType, codes.InvalidArgument, "the content type must be " + typeProtobuf + " or " + typeJSON}
	}
	body, err := readBody(w, req)
	if err != nil {
		return request, done, err
	}
	if len(body) > large {
		r.turns <- struct{}{}
		done = func() { <-r.turns }
	}
	if err := unmarshal(body); err != nil {
		return request, done, badRequest(err)
	}
	return request, done, nil
}

func badRequest(err error) error {
	return &failure{http.StatusBadRequest, codes.InvalidArgument, fmt.Sprintf("the request cannot be read: %v", err)}
}

func readBody(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	limited := http.MaxBytesReader(w, req.Body, maxBody)
	var from io.Reader = limited
	switch req.Header.Get("Content-Encoding") {
	case "", "identity":
	case "gzip":
		unpacked, err := gzip.NewReader(limited)
		if err != nil {
			return nil, badRequest(err)
		}
		from = io.LimitReader(unpacked, maxBody+1) // one more, to see that it is too large
	default:
		return nil, &failure{http.StatusUnsupportedMediaType, codes.InvalidArgument, "the content encoding must be gzip or none"}
	}
	body, err := io.ReadAll(from)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || len(body) > maxBody {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, badRequest(err)
	}
	return body, nil
}

// refuse answers with a Status, in the form of the request (OTLP specification, "Failures").
func refuse(w http.ResponseWriter, contentType string, err error) {
	f := &failure{http.StatusInternalServerError, codes.Internal, "the answer cannot be written"}
	errors.As(err, &f)
	marshal := proto.Marshal
	if contentType == typeJSON {
		marshal = protojson.Marshal
	} else {
		contentType = typeProtobuf
	}
	body, _ := marshal(&status.Status{Code: int32(f.code), Message: strings.ToValidUTF8(f.message, "\uFFFD")})
	write(w, contentType, f.status, body)
}

func write(w http.ResponseWriter, contentType string, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // who does not listen any more needs no answer
}
