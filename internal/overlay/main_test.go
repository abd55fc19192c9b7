package overlay

import "runtime"

// allocated is how many bytes have been allocated so far, freed ones included.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
