package server

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/collie-otel/collie/internal/server/api"
)

// apiHandler is the people's port.
func (s *Server) apiHandler() http.Handler {
	handler := api.New(api.Options{
		Store: s.store, Control: s.control, Auth: s.auth, Log: s.log, HideAfter: s.config.Retention.HideAgents,
	})
	s.endStreams = handler.Close
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), fleetCollector{s})
	mux := http.NewServeMux()
	mux.Handle("/api/", handler)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", s.ready)
	return mux
}

// ready says whether the store answers and the server does not end.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	_, err := s.store.Revision(ctx)
	switch {
	case s.stopping.Load():
		answer(w, http.StatusServiceUnavailable, "the server ends")
	case err != nil:
		answer(w, http.StatusServiceUnavailable, "the store does not answer")
	default:
		answer(w, http.StatusOK, "ready")
	}
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n"))
}

// fleetCollector reads everything when it is scraped.
type fleetCollector struct{ s *Server }

var (
	agentsDesc      = prometheus.NewDesc("collie_agents", "Agents by state.", []string{"state"}, nil)
	rolloutsDesc    = prometheus.NewDesc("collie_rollouts", "Unfinished rollouts.", nil, nil)
	unsavedDesc     = prometheus.NewDesc("collie_unsaved", "Agents and events that are not written yet.", nil, nil)
	connectionsDesc = prometheus.NewDesc("collie_opamp_connections", "WebSocket connections.", nil, nil)
	messagesDesc    = prometheus.NewDesc("collie_opamp_messages_total", "OpAMP messages by direction and kind.", []string{"direction", "kind"}, nil)
	bytesDesc       = prometheus.NewDesc("collie_opamp_message_bytes_total", "Bytes of OpAMP messages, without compression.", []string{"direction"}, nil)
	acceptedDesc    = prometheus.NewDesc("collie_opamp_accepted_total", "Connections accepted.", nil, nil)
	refusedDesc     = prometheus.NewDesc("collie_opamp_refused_total", "Connections and requests refused.", nil, nil)
	droppedDesc     = prometheus.NewDesc("collie_opamp_offers_dropped_total", "Offers that could not be sent.", nil, nil)
	goneDesc        = prometheus.NewDesc("collie_opamp_agents_gone_total", "Agents that went away.", nil, nil)
	duplicatesDesc  = prometheus.NewDesc("collie_opamp_duplicates_total", "Agents that came under the UID of another one.", nil, nil)
	gapsDesc        = prometheus.NewDesc("collie_opamp_gaps_total", "Gaps in the sequence of messages.", nil, nil)
)

// Describe is part of prometheus.Collector.
func (c fleetCollector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect is part of prometheus.Collector.
func (c fleetCollector) Collect(out chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	summary := c.s.control.Summary()
	for state, n := range summary.States {
		gauge(agentsDesc, n, string(state))
	}
	gauge(rolloutsDesc, summary.Rollouts)
	gauge(unsavedDesc, summary.Unsaved)
	m := c.s.control.OpAMPMetrics()
	gauge(connectionsDesc, m.Connections)
	for kind, n := range m.In {
		counter(messagesDesc, n, "in", kind.String())
	}
	for kind, n := range m.Out {
		counter(messagesDesc, n, "out", kind.String())
	}
	counter(bytesDesc, m.BytesIn, "in")
	counter(bytesDesc, m.BytesOut, "out")
	counter(acceptedDesc, m.Accepted)
	counter(refusedDesc, m.Refused)
	counter(droppedDesc, m.Dropped)
	counter(goneDesc, m.Gone)
	counter(duplicatesDesc, m.Duplicates)
	counter(gapsDesc, m.Gaps)
}
