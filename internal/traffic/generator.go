package traffic

import (
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The attributes that RunLoad puts on every span and that Sink reads.
const (
	AttributeRun        = "collie.run"         // string: the run's id
	AttributeSeq        = "collie.seq"         // int: trace number * spans per trace + index of the span in the trace
	AttributeTraceSpans = "collie.trace_spans" // int: spans per trace
	AttributeKind       = "collie.kind"        // string: fast, slow or error
)

const (
	attributesPerSpan = 8
	// shrink is how much shorter the work of each service is than that of its caller.
	shrink = 0.85
)

var (
	serviceNames = []string{
		"frontend", "checkout", "cart", "payment", "shipping", "catalog", "recommendation", "currency", "email", "ads",
	}
	methods = []string{"GET", "POST", "GET", "PUT"}
	actions = []string{"items", "orders/{id}", "status", "quote"}
)

// service is what all spans of one service share. The slices are indexed by the trace's route.
type service struct {
	name, address string
	routes        []string
	spanNames     []string
}

// generator makes requests. It holds no state that changes: workers share it.
type generator struct {
	run           string
	seed          uint64
	spansPerTrace int
	services      []service
	slowRatio     float64
	errorRatio    float64
}

func newGenerator(cfg LoadConfig) *generator {
	g := &generator{
		run: cfg.Run, seed: runSeed(cfg.Run), spansPerTrace: cfg.SpansPerTrace,
		slowRatio: cfg.SlowRatio, errorRatio: cfg.ErrorRatio,
	}
	for i := range cfg.Services {
		g.services = append(g.services, newService(i))
	}
	return g
}

func newService(i int) service {
	s := service{name: fmt.Sprintf("service-%d", i+1)}
	if i < len(serviceNames) {
		s.name = serviceNames[i]
	}
	s.address = s.name + ".example"
	for r, action := range actions {
		route := "/" + s.name + "/" + action
		s.routes = append(s.routes, route)
		s.spanNames = append(s.spanNames, methods[r]+" "+route)
	}
	return s
}

// trace is what the spans of one trace share, computed again for each request that carries some of them.
type trace struct {
	hash      hash
	number    int
	id        pcommon.TraceID
	kind      string
	route     int
	errorSpan int // index, -1 without an error
	start     time.Duration
	duration  time.Duration
}

// newTrace describes a trace that ends at the given time since the epoch.
func (g *generator) newTrace(number int, ended time.Duration) trace {
	h := traceHash(g.seed, number)
	t := trace{
		hash: h, number: number, id: h.traceID(), kind: h.kind(g.slowRatio, g.errorRatio),
		route: int(h.draw(drawRoute) % uint64(len(actions))), errorSpan: -1,
	}
	shortest, longest := 5*time.Millisecond, 300*time.Millisecond
	if h.slow(g.slowRatio) {
		shortest, longest = 700*time.Millisecond, 1500*time.Millisecond
	}
	t.duration = shortest + time.Duration(h.unit(drawDuration)*float64(longest-shortest))
	t.start = ended - t.duration
	if t.kind == KindError {
		t.errorSpan = int(h.draw(drawErrorSpan) % uint64(g.spansPerTrace))
	}
	return t
}

// traces builds the spans of one request.
func (g *generator) traces(j *job) ptrace.Traces {
	svc := &g.services[j.service]
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	resource := rs.Resource().Attributes()
	resource.EnsureCapacity(4)
	resource.PutStr("service.name", svc.name)
	resource.PutStr("service.version", "1.4.2")
	resource.PutStr("deployment.environment.name", "test")
	resource.PutStr("telemetry.sdk.language", "go")
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("collie.load")
	spans := ss.Spans()
	spans.EnsureCapacity(j.spans())
	ended := time.Duration(j.ended.UnixNano())
	for number := j.firstTrace; number < j.firstTrace+j.traces; number++ {
		t := g.newTrace(number, ended)
		work := g.serviceWork(&t, j.service)
		for index := j.fromSpan; index < j.toSpan; index++ {
			g.fillSpan(spans.AppendEmpty(), &t, &work, index)
		}
	}
	return td
}

// work is the part of a trace that one service does.
type work struct {
	service         *service
	first, last     int // span indexes
	lastService     bool
	start, duration time.Duration
	front           time.Duration // from the start of the service's work to the start of its call of the next service
}

func (g *generator) serviceWork(t *trace, index int) work {
	w := work{
		service:     &g.services[index],
		first:       index * g.spansPerTrace / len(g.services),
		last:        (index+1)*g.spansPerTrace/len(g.services) - 1,
		lastService: index == len(g.services)-1,
		duration:    t.duration,
	}
	for range index {
		w.duration = time.Duration(float64(w.duration) * shrink)
	}
	w.start = t.start + (t.duration-w.duration)/2
	w.front = time.Duration(float64(w.duration) * (1 - shrink) / 4)
	return w
}

// fillSpan places a span: the first of a service is the server span, the last the call of the next service, the others
// are internal steps before that call.
func (g *generator) fillSpan(span ptrace.Span, t *trace, w *work, index int) {
	span.SetTraceID(t.id)
	span.SetSpanID(t.hash.spanID(index))
	span.SetName(w.service.spanNames[t.route])
	start, duration := w.start, w.duration
	switch {
	case index == w.first:
		span.SetKind(ptrace.SpanKindServer)
		if index > 0 {
			span.SetParentSpanID(t.hash.spanID(index - 1))
		}
	case index == w.last && !w.lastService:
		span.SetKind(ptrace.SpanKindClient)
		span.SetParentSpanID(t.hash.spanID(w.first))
		start, duration = w.start+w.front, w.duration-2*w.front
	default:
		span.SetKind(ptrace.SpanKindInternal)
		span.SetParentSpanID(t.hash.spanID(w.first))
		step := w.front / time.Duration(w.last-w.first+1)
		start, duration = w.start+step*time.Duration(index-w.first), step
	}
	span.SetStartTimestamp(pcommon.Timestamp(start))
	span.SetEndTimestamp(pcommon.Timestamp(start + duration))
	g.fillAttributes(span, t, w, index)
}

func (g *generator) fillAttributes(span ptrace.Span, t *trace, w *work, index int) {
	status := int64(200)
	if index == t.errorSpan {
		status = 500
		span.Status().SetCode(ptrace.StatusCodeError)
		span.Status().SetMessage("answered " + strconv.FormatInt(status, 10))
	}
	a := span.Attributes()
	a.EnsureCapacity(attributesPerSpan)
	a.PutStr(AttributeRun, g.run)
	a.PutInt(AttributeSeq, int64(t.number)*int64(g.spansPerTrace)+int64(index))
	a.PutInt(AttributeTraceSpans, int64(g.spansPerTrace))
	a.PutStr(AttributeKind, t.kind)
	a.PutStr("http.request.method", methods[t.route])
	a.PutStr("http.route", w.service.routes[t.route])
	a.PutInt("http.response.status_code", status)
	a.PutStr("server.address", w.service.address)
}
