package traffic

import "hash/fnv"

// The kinds of traces. They decide the attribute collie.kind and never depend on anything but run, trace number and ratios.
const (
	KindFast  = "fast"
	KindSlow  = "slow"
	KindError = "error"
)

// Names of the independent draws made for one trace. Changing one changes every trace of every run id.
const (
	drawError = iota + 1
	drawSlow
	drawDuration
	drawErrorSpan
	drawRoute
	drawTraceIDHigh
	drawTraceIDLow
	drawFirstSpanID = 1 << 32
)

// KindOf says what RunLoad makes of a trace: KindError when it holds an ERROR span, however slow it is, else KindSlow or KindFast.
func KindOf(run string, trace int, slowRatio, errorRatio float64) string {
	return traceHash(runSeed(run), trace).kind(slowRatio, errorRatio)
}

// TraceIDOf is the trace id of a trace of a run.
func TraceIDOf(run string, trace int) [16]byte {
	return traceHash(runSeed(run), trace).traceID()
}

// hash is a trace's source of numbers that look random and never change.
type hash uint64

func runSeed(run string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(run)) // never fails
	return mix(h.Sum64())
}

func traceHash(seed uint64, trace int) hash { return hash(mix(seed ^ mix(uint64(trace)+1))) }

// mix is the finalizer of splitmix64: every bit of the input changes half of the output's.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	return x ^ (x >> 31)
}

func (h hash) draw(name uint64) uint64 { return mix(uint64(h) ^ mix(name)) }

// unit draws from [0, 1).
func (h hash) unit(name uint64) float64 { return float64(h.draw(name)>>11) / (1 << 53) }

func (h hash) slow(ratio float64) bool { return h.unit(drawSlow) < ratio }

func (h hash) kind(slowRatio, errorRatio float64) string {
	switch {
	case h.unit(drawError) < errorRatio:
		return KindError
	case h.slow(slowRatio):
		return KindSlow
	default:
		return KindFast
	}
}

func (h hash) traceID() (id [16]byte) {
	putUint64(id[:8], h.draw(drawTraceIDHigh))
	putUint64(id[8:], h.draw(drawTraceIDLow))
	return id
}

func (h hash) spanID(index int) (id [8]byte) {
	putUint64(id[:], h.draw(drawFirstSpanID+uint64(index))|1) // all zero would be an invalid id
	return id
}

func putUint64(b []byte, v uint64) {
	for i := range 8 {
		b[i] = byte(v >> (56 - 8*i))
	}
}
