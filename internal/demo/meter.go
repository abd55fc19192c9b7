package demo

import (
	"context"
	"fmt"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// reading is what a Collector says of itself: spans in all, spans per second since the last reading, items in queues.
type reading struct {
	accepted, sent, queued           float64
	acceptedPerSecond, sentPerSecond float64
}

// meter reads a Collector's own metrics again and again.
type meter struct {
	last reading
	at   time.Time
}

func (m *meter) read(ctx context.Context, address string) (reading, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return reading{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reading{}, fmt.Errorf("read the Collector's metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return reading{}, fmt.Errorf("decode the Collector's metrics: %w", err)
	}
	r := reading{
		accepted: sum(families["otelcol_receiver_accepted_spans"]),
		sent:     sum(families["otelcol_exporter_sent_spans"]),
		queued:   sum(families["otelcol_exporter_queue_size"]),
	}
	now := time.Now()
	if seconds := now.Sub(m.at).Seconds(); !m.at.IsZero() && seconds > 0 {
		r.acceptedPerSecond = (r.accepted - m.last.accepted) / seconds
		r.sentPerSecond = (r.sent - m.last.sent) / seconds
	}
	m.last, m.at = r, now
	return r, nil
}

func sum(family *dto.MetricFamily) float64 {
	total := 0.0
	for _, metric := range family.GetMetric() {
		total += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetUntyped().GetValue()
	}
	return total
}
