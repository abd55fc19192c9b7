package remoteconfig

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// vigil watches over the health of a configuration on trial.
type vigil struct {
	// failing are the components that have an error now; baseline those that had one before the trial: such errors count for
	// nothing, they are not the configuration's.
	failing, baseline map[string]Problem
	clean             time.Time // since when nothing fails that did not before; zero while something does
	dirty             time.Time // since when something does
}

// begin is the moment when the configuration is ready.
func (v *vigil) begin(now time.Time) { v.clean, v.dirty = now, time.Time{} }

// judge says what is wrong with the configuration; or after how long to look again; or, with neither, that it is good.
func (v *vigil) judge(now time.Time, soak, grace time.Duration) (again time.Duration, wrong string) {
	name, problem := v.worst()
	switch {
	case name == "":
		v.dirty = time.Time{}
		if v.clean.IsZero() {
			v.clean = now
		}
		return max(0, soak-now.Sub(v.clean)), ""
	case problem.Lasting:
		return 0, name + ": " + problem.Err
	default:
		v.clean = time.Time{}
		if v.dirty.IsZero() {
			v.dirty = now
		}
		if left := grace - now.Sub(v.dirty); left > 0 {
			return left, ""
		}
		return 0, fmt.Sprintf("%s, for %v: %s", name, grace, problem.Err)
	}
}

// worst is a component that has a problem which it did not have before the trial; a lasting one if there is one.
func (v *vigil) worst() (name string, worst Problem) {
	for _, n := range slices.Sorted(maps.Keys(v.failing)) {
		p := v.failing[n]
		if before, ok := v.baseline[n]; ok && (before.Lasting || !p.Lasting) {
			continue
		}
		if name == "" || p.Lasting && !worst.Lasting {
			name, worst = n, p
		}
	}
	return name, worst
}
