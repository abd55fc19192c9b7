package traffic

// otherName stands for everything beyond the bound of a table.
const otherName = "(other)"

// Bounds of what a Sink tells apart. Beyond them it counts under "(other)", or in RunsOverflow.
const (
	maxRuns            = 64
	maxServices        = 1024
	maxKinds           = 16
	maxAttributes      = 64
	maxAttributeValues = 16
	maxMetrics         = 1024
)

// SinkSummary is what a Sink has received. Each number is about spans unless it says otherwise.
type SinkSummary struct {
	Requests   int64 `json:"requests"`   // requests of all signals, with those that wait or were rejected
	Rejected   int64 `json:"rejected"`   // requests answered with an error; nothing of them is counted below
	Spans      int64 `json:"spans"`      // received, duplicates included
	Distinct   int64 `json:"distinct"`   // sequence numbers received, over all runs
	Duplicates int64 `json:"duplicates"` // spans whose sequence number had arrived before
	// Missing are gaps: sequence numbers, from 0 to the highest one seen of each run, that have not arrived (yet). What was
	// sampled away counts, and so does a phase that another sink received; Missing the function compares with what was
	// acknowledged.
	Missing      int64                       `json:"missing"`
	Unnumbered   int64                       `json:"unnumbered"`    // spans that do not come from RunLoad
	RunsOverflow int64                       `json:"runs_overflow"` // spans of runs beyond the first 64, which are not told apart
	DataPoints   int64                       `json:"data_points"`
	LogRecords   int64                       `json:"log_records"`
	Runs         map[string]RunSummary       `json:"runs"`
	Services     map[string]int64            `json:"services"` // spans by service.name
	Traces       map[string]TraceCount       `json:"traces"`   // by kind
	Attributes   map[string]map[string]int64 `json:"attributes"`
	Metrics      map[string]MetricSummary    `json:"metrics"` // by metric name
	// SpanDurationsMS is about the durations of spans, in milliseconds.
	SpanDurationsMS Histogram `json:"span_durations_ms"`
}

// RunSummary is about one run; its fields are those of SinkSummary.
type RunSummary struct {
	Spans      int64 `json:"spans"`
	Distinct   int64 `json:"distinct"`
	Duplicates int64 `json:"duplicates"`
	Missing    int64 `json:"missing"`
	TraceSpans int64 `json:"trace_spans"` // spans per trace, as the first span of the run says
}

// TraceCount tells traces of which all spans arrived from those of which some did.
type TraceCount struct {
	Whole   int64 `json:"whole"`
	Partial int64 `json:"partial"`
}

// MetricSummary adds up the data points of a metric. Sum is the sum of the values of gauge and sum points; of histograms,
// exponential histograms and summaries it is the sum of their counts.
type MetricSummary struct {
	DataPoints int64   `json:"data_points"`
	Sum        float64 `json:"sum"`
}

// Histogram has one count more than bounds: Counts[i] is of values up to Bounds[i], the last count of those above all bounds.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []int64   `json:"counts"`
}

func durationBounds() []float64 { return []float64{5, 10, 25, 50, 100, 250, 500, 600, 1000, 2500} }
