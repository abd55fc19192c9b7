// Package bench measures on real processes, side by side in one run: `make bench`. It asserts nothing; its figures are
// ratios of CPU per span between variants that ran in turn on the same core, several rounds each, of which the median counts.
package bench
