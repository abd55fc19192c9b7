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

// meter reads the own metrics of Collectors again and again, and adds them up.
type meter struct {
	addresses []string
	last      reading
	at        time.Time
	// before is what counters had when they began anew, in all.
	before reading
}

func (m *meter) read(ctx context.Context) (reading, error) {
	var r reading
	for _, address := range m.addresses {
		families, err := scrape(ctx, address)
		if err != nil {
			return reading{}, err
		}
		r.accepted += sum(families["otelcol_receiver_accepted_spans"])
		r.sent += sum(families["otelcol_exporter_sent_spans"])
		r.queued += sum(families["otelcol_exporter_queue_size"])
	}
	// Counters begin anew with each configuration.
	if r.accepted += m.before.accepted; r.accepted < m.last.accepted {
		m.before.accepted, r.accepted = m.last.accepted, r.accepted-m.before.accepted+m.last.accepted
	}
	if r.sent += m.before.sent; r.sent < m.last.sent {
		m.before.sent, r.sent = m.last.sent, r.sent-m.before.sent+m.last.sent
	}
	now := time.Now()
	if seconds := now.Sub(m.at).Seconds(); !m.at.IsZero() && seconds > 0 {
		r.acceptedPerSecond = (r.accepted - m.last.accepted) / seconds
		r.sentPerSecond = (r.sent - m.last.sent) / seconds
	}
	m.last, m.at = r, now
	return r, nil
}

func scrape(ctx context.Context, address string) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read the Collector's metrics: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("decode the Collector's metrics: %w", err)
	}
	return families, nil
}

func sum(family *dto.MetricFamily) float64 {
	total := 0.0
	for _, metric := range family.GetMetric() {
		total += metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + metric.GetUntyped().GetValue()
	}
	return total
}
